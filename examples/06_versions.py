"""Every write publishes a new version; readers stay on theirs until they ask for the newest."""

import tempfile

import pheon

with tempfile.TemporaryDirectory() as folder, pheon.open(f"{folder}/store") as store:
    rates = store.put_map("rates", {"EUR": 1.0, "USD": 1.1})
    assert rates.version == 1

    store.put_map("rates", {"EUR": 1.0, "USD": 1.2, "JPY": 160.0})
    assert rates["USD"] == 1.1  # an open handle does not change under its reader
    rates.refresh()
    assert rates.version == 2
    assert rates["USD"] == 1.2
    assert "JPY" in rates

    store.rollback("rates", 1)  # publishes version 1 again, as version 3
    rates.refresh()
    assert rates["USD"] == 1.1

    print("versions:", store.versions("rates"))
    store.verify("rates")  # checksums, order, index against data; raises pheon.CorruptError
    store.drop("rates")
    assert "rates" not in store
    assert rates["USD"] == 1.1  # still mapped by this handle
