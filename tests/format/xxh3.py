"""XXH3-64 and XXH3-128 with a seed, for inputs of any length, in plain Python.

Written from the published specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md, XXH3 section). Slow and
obvious: it is the oracle for what Pheon stores, so it shares no code with it.
"""

_MASK32 = (1 << 32) - 1
_MASK64 = (1 << 64) - 1

_PRIME32_1 = 0x9E3779B1
_PRIME32_2 = 0x85EBCA77
_PRIME32_3 = 0xC2B2AE3D
_PRIME64_1 = 0x9E3779B185EBCA87
_PRIME64_2 = 0xC2B2AE3D27D4EB4F
_PRIME64_3 = 0x165667B19E3779F9
_PRIME64_4 = 0x85EBCA77C2B2AE63
_PRIME64_5 = 0x27D4EB2F165667C5
_PRIME_MX1 = 0x165667919E3779F9
_PRIME_MX2 = 0x9FB21C651E98DF25

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_STRIPE = 64
_LANES = 8
_SECRET_STEP = 8
_STRIPES_A_BLOCK = (len(_SECRET) - _STRIPE) // _SECRET_STEP
_MIDSIZE_MAX = 240


def xxh3_64(data: bytes, seed: int = 0) -> int:
    """The 64-bit hash of `data`."""
    length = len(data)
    if length <= 16:
        return _short_64(data, seed)
    if length <= 128:
        acc = length * _PRIME64_1
        for i in reversed(range((length - 1) // 32 + 1)):
            acc += _mix16(data, 16 * i, _SECRET, 32 * i, seed)
            acc += _mix16(data, length - 16 * (i + 1), _SECRET, 32 * i + 16, seed)
        return _avalanche(acc & _MASK64)
    if length <= _MIDSIZE_MAX:
        acc = length * _PRIME64_1
        for i in range(8):
            acc += _mix16(data, 16 * i, _SECRET, 16 * i, seed)
        acc = _avalanche(acc & _MASK64)
        for i in range(8, length // 16):
            acc += _mix16(data, 16 * i, _SECRET, 16 * (i - 8) + 3, seed)
        acc += _mix16(data, length - 16, _SECRET, 136 - 17, seed)
        return _avalanche(acc & _MASK64)
    acc, secret = _long(data, seed)
    return _merge(acc, secret, 11, length * _PRIME64_1 & _MASK64)


def xxh3_128(data: bytes, seed: int = 0) -> int:
    """The 128-bit hash of `data`: the high 64 bits are the canonical form's first eight bytes."""
    length = len(data)
    if length <= 16:
        low, high = _short_128(data, seed)
    elif length <= _MIDSIZE_MAX:
        low, high = _middle_128(data, seed)
    else:
        acc, secret = _long(data, seed)
        low = _merge(acc, secret, 11, length * _PRIME64_1 & _MASK64)
        high = _merge(acc, secret, len(secret) - _STRIPE - 11, ~(length * _PRIME64_2) & _MASK64)
    return high << 64 | low


def _short_64(data: bytes, seed: int) -> int:
    length = len(data)
    if length == 0:
        return _avalanche_xxh64(seed ^ _u64(_SECRET, 56) ^ _u64(_SECRET, 64))
    if length <= 3:
        combined = data[0] << 16 | data[length >> 1] << 24 | data[-1] | length << 8
        flip = ((_u32(_SECRET, 0) ^ _u32(_SECRET, 4)) + seed) & _MASK64
        return _avalanche_xxh64(combined ^ flip)
    if length <= 8:
        seed ^= _swap32(seed & _MASK32) << 32
        flip = ((_u64(_SECRET, 8) ^ _u64(_SECRET, 16)) - seed) & _MASK64
        keyed = (_u32(data, length - 4) + (_u32(data, 0) << 32)) ^ flip
        keyed ^= _rotate_left(keyed, 49) ^ _rotate_left(keyed, 24)
        keyed = keyed * _PRIME_MX2 & _MASK64
        keyed ^= (keyed >> 35) + length
        keyed = keyed * _PRIME_MX2 & _MASK64
        return keyed ^ keyed >> 28
    flip_low = ((_u64(_SECRET, 24) ^ _u64(_SECRET, 32)) + seed) & _MASK64
    flip_high = ((_u64(_SECRET, 40) ^ _u64(_SECRET, 48)) - seed) & _MASK64
    low = _u64(data, 0) ^ flip_low
    high = _u64(data, length - 8) ^ flip_high
    return _avalanche((length + _swap64(low) + high + _fold(low, high)) & _MASK64)


def _short_128(data: bytes, seed: int) -> tuple[int, int]:
    length = len(data)
    if length == 0:
        low = _avalanche_xxh64(seed ^ _u64(_SECRET, 64) ^ _u64(_SECRET, 72))
        return low, _avalanche_xxh64(seed ^ _u64(_SECRET, 80) ^ _u64(_SECRET, 88))
    if length <= 3:
        combined = data[0] << 16 | data[length >> 1] << 24 | data[-1] | length << 8
        swapped = _swap32(combined)
        rotated = (swapped << 13 | swapped >> 19) & _MASK32
        flip_low = ((_u32(_SECRET, 0) ^ _u32(_SECRET, 4)) + seed) & _MASK64
        flip_high = ((_u32(_SECRET, 8) ^ _u32(_SECRET, 12)) - seed) & _MASK64
        return _avalanche_xxh64(combined ^ flip_low), _avalanche_xxh64(rotated ^ flip_high)
    if length <= 8:
        seed ^= _swap32(seed & _MASK32) << 32
        flip = ((_u64(_SECRET, 16) ^ _u64(_SECRET, 24)) + seed) & _MASK64
        keyed = (_u32(data, 0) + (_u32(data, length - 4) << 32)) ^ flip
        product = keyed * (_PRIME64_1 + (length << 2))
        low, high = product & _MASK64, product >> 64 & _MASK64
        high = (high + (low << 1)) & _MASK64
        low ^= high >> 3
        low ^= low >> 35
        low = low * _PRIME_MX2 & _MASK64
        low ^= low >> 28
        return low, _avalanche(high)
    flip_low = ((_u64(_SECRET, 32) ^ _u64(_SECRET, 40)) - seed) & _MASK64
    flip_high = ((_u64(_SECRET, 48) ^ _u64(_SECRET, 56)) + seed) & _MASK64
    first, last = _u64(data, 0), _u64(data, length - 8)
    product = (first ^ last ^ flip_low) * _PRIME64_1
    low, high = product & _MASK64, product >> 64
    low = (low + ((length - 1) << 54)) & _MASK64
    last ^= flip_high
    high = (high + last + (last & _MASK32) * (_PRIME32_2 - 1)) & _MASK64
    low ^= _swap64(high)
    product = low * _PRIME64_2
    low, carry = product & _MASK64, product >> 64
    return _avalanche(low), _avalanche((carry + high * _PRIME64_2) & _MASK64)


def _middle_128(data: bytes, seed: int) -> tuple[int, int]:
    length = len(data)
    low, high = length * _PRIME64_1 & _MASK64, 0

    def mix32(first: int, second: int, at: int, seed: int) -> None:
        nonlocal low, high
        low = (low + _mix16(data, first, _SECRET, at, seed)) & _MASK64
        low ^= (_u64(data, second) + _u64(data, second + 8)) & _MASK64
        high = (high + _mix16(data, second, _SECRET, at + 16, seed)) & _MASK64
        high ^= (_u64(data, first) + _u64(data, first + 8)) & _MASK64

    if length <= 128:
        for i in reversed(range((length - 1) // 32 + 1)):
            mix32(16 * i, length - 16 * (i + 1), 32 * i, seed)
    else:
        for i in range(4):
            mix32(32 * i, 32 * i + 16, 32 * i, seed)
        low, high = _avalanche(low), _avalanche(high)
        for i in range(4, length // 32):
            mix32(32 * i, 32 * i + 16, 3 + 32 * (i - 4), seed)
        mix32(length - 16, length - 32, 136 - 17 - 16, -seed & _MASK64)
    mixed = low * _PRIME64_1 + high * _PRIME64_4 + (length - seed) * _PRIME64_2
    return _avalanche((low + high) & _MASK64), -_avalanche(mixed & _MASK64) & _MASK64


def _long(data: bytes, seed: int) -> tuple[list[int], bytes]:
    """The eight accumulators over more than 240 bytes, and the secret that the seed makes."""
    secret = _SECRET
    if seed:
        words = []
        for i in range(0, len(_SECRET), 16):
            words += [_u64(_SECRET, i) + seed, _u64(_SECRET, i + 8) - seed]
        secret = b"".join((word & _MASK64).to_bytes(8, "little") for word in words)
    acc = [
        _PRIME32_3, _PRIME64_1, _PRIME64_2, _PRIME64_3, _PRIME64_4, _PRIME32_2, _PRIME64_5, _PRIME32_1,
    ]  # fmt: skip
    full_stripes = (len(data) - 1) // _STRIPE
    for stripe in range(full_stripes):
        in_block = stripe % _STRIPES_A_BLOCK
        _accumulate(acc, data, stripe * _STRIPE, secret, in_block * _SECRET_STEP)
        if in_block == _STRIPES_A_BLOCK - 1:
            for lane in range(_LANES):
                value = acc[lane]
                value ^= value >> 47
                value ^= _u64(secret, len(secret) - _STRIPE + 8 * lane)
                acc[lane] = value * _PRIME32_1 & _MASK64
    _accumulate(acc, data, len(data) - _STRIPE, secret, len(secret) - _STRIPE - 7)
    return acc, secret


def _accumulate(acc: list[int], data: bytes, at: int, secret: bytes, secret_at: int) -> None:
    for lane in range(_LANES):
        value = _u64(data, at + 8 * lane)
        keyed = value ^ _u64(secret, secret_at + 8 * lane)
        acc[lane ^ 1] = (acc[lane ^ 1] + value) & _MASK64
        acc[lane] = (acc[lane] + (keyed & _MASK32) * (keyed >> 32)) & _MASK64


def _merge(acc: list[int], secret: bytes, secret_at: int, start: int) -> int:
    result = start
    for i in range(0, _LANES, 2):
        at = secret_at + 8 * i
        result += _fold(acc[i] ^ _u64(secret, at), acc[i + 1] ^ _u64(secret, at + 8))
    return _avalanche(result & _MASK64)


def _mix16(data: bytes, at: int, secret: bytes, secret_at: int, seed: int) -> int:
    low = _u64(data, at) ^ (_u64(secret, secret_at) + seed & _MASK64)
    high = _u64(data, at + 8) ^ (_u64(secret, secret_at + 8) - seed & _MASK64)
    return _fold(low, high)


def _fold(a: int, b: int) -> int:
    product = a * b
    return (product ^ product >> 64) & _MASK64


def _avalanche(h: int) -> int:
    h ^= h >> 37
    h = h * _PRIME_MX1 & _MASK64
    return h ^ h >> 32


def _avalanche_xxh64(h: int) -> int:
    h ^= h >> 33
    h = h * _PRIME64_2 & _MASK64
    h ^= h >> 29
    h = h * _PRIME64_3 & _MASK64
    return h ^ h >> 32


def _rotate_left(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _MASK64


def _swap32(value: int) -> int:
    return int.from_bytes(value.to_bytes(4, "little"), "big")


def _swap64(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
