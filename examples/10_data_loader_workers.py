"""Workers that make training batches, in the manner of torch's DataLoader but without torch: one copy for all of them.

A `Dataset` has a length and gives samples by number. torch pickles it for each worker; here that costs some hundred
bytes, whatever the data's size, and every worker's arrays are views of the same memory.
"""

import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa

import pheon

ROWS = 200_000
BATCH = 256


class Samples:
    """A dataset for ``torch.utils.data.DataLoader(..., num_workers=n)``, or for the loader below."""

    def __init__(self, table: pheon.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitems__(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Many samples at once: features and labels."""
        features = np.column_stack([self.table.to_numpy(name)[numbers] for name in ("a", "b", "c")])
        return features, self.table.to_numpy("label")[numbers]


def batch_sum(samples: Samples, numbers: list[int]) -> tuple[int, float]:
    """What a training step would do with a batch."""
    features, labels = samples.__getitems__(numbers)
    return int(labels.sum()), float(features.sum())


def shuffled(rows: int, seed: int) -> Iterator[list[int]]:
    """Row numbers in batches, each row once."""
    order = np.random.default_rng(seed).permutation(rows)
    return (order[at : at + BATCH].tolist() for at in range(0, rows, BATCH))


def main() -> None:
    rng = np.random.default_rng(1)
    columns = {name: rng.random(ROWS).round(6) for name in ("a", "b", "c")}
    labels = rng.integers(0, 10, ROWS)
    with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
        samples = Samples(store.put("samples", pa.table({**columns, "label": labels})))
        print("a dataset pickles to", len(pickle.dumps(samples)), "bytes")
        with ProcessPoolExecutor(max_workers=4, mp_context=get_context("spawn")) as pool:
            batches = list(shuffled(len(samples), seed=2))
            sums = list(pool.map(batch_sum, [samples] * len(batches), batches, chunksize=32))
        assert sum(label for label, _ in sums) == labels.sum()
        assert np.isclose(sum(total for _, total in sums), sum(column.sum() for column in columns.values()))
        print(f"{len(batches)} batches of {BATCH} from 4 workers")


if __name__ == "__main__":
    main()
