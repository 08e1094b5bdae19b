//! docs/format.md sections 3.2 and 3.3 with numbers from another implementation: what is hashed for every key type, and
//! where in `index.arrow` a key is found by it.

use arrow_array::{Array, RecordBatch};
use arrow_buffer::i256;
use arrow_schema::{DataType, TimeUnit};
use pheon::KeyRef;
use std::sync::Arc;

use crate::keys::{Key, array, key_ref};
use crate::scratch::{Scratch, entries};

/// XXH3-64 of these keys with seed 0, by the reference implementation in C (python-xxhash 3), fed with the bytes that the
/// specification names.
fn vectors() -> Vec<(DataType, Key, u64)> {
    use DataType as D;
    use TimeUnit::{Nanosecond, Second};
    let text = |s: &str| Key::Bytes(s.as_bytes().to_vec());
    let number = |n: i128| Key::Number(i256::from_i128(n));
    let long: Vec<u8> = (0..=255).chain(b"tail".repeat(20)).collect();
    vec![
        (D::Utf8, text("usr/bin/python3"), 0x1A4A_D686_C5D7_E656),
        (D::LargeUtf8, text("€uro"), 0xD39B_DE78_5557_B2E1),
        (D::Utf8View, text(""), 0x2D06_8005_38D3_94C2),
        (D::Binary, Key::Bytes(long), 0xB6C8_0D52_4963_7406),
        (D::FixedSizeBinary(5), Key::Bytes(vec![0, 1, 0xFE, 0xFF, 0x7F]), 0xFFB2_E416_40F3_63E1),
        (D::Int8, number(-128), 0x0F9B_29B3_A9CA_6A5E),
        (D::Int8, number(127), 0x7D8B_57AA_72DF_75FC),
        (D::Int16, number(-1), 0x5111_C7E4_7D78_4413),
        (D::Int32, number(-1), 0x5111_C7E4_7D78_4413),
        (D::Int64, number(-1), 0x5111_C7E4_7D78_4413),
        (D::Int64, number(i64::MIN.into()), 0x828F_2476_789A_0E5F),
        (D::Int64, number(i64::MAX.into()), 0xA233_CF37_6558_DF46),
        (D::UInt8, number(255), 0x0D00_568A_2225_A3E5),
        (D::UInt16, number(255), 0x0D00_568A_2225_A3E5),
        (D::UInt32, number(u32::MAX.into()), 0xF022_9C56_2A27_8D89),
        (D::UInt64, number(u64::MAX.into()), 0x5111_C7E4_7D78_4413),
        (D::Boolean, number(0), 0xC77B_3ABB_6F87_ACD9),
        (D::Boolean, number(1), 0x2FBC_5935_64DB_792E),
        (D::Date32, number(20_000), 0x2F2A_B4B5_ED24_A692),
        (D::Date64, number(20_000), 0x2F2A_B4B5_ED24_A692),
        (D::Time32(Second), number(20_000), 0x2F2A_B4B5_ED24_A692),
        (D::Time64(Nanosecond), number(20_000), 0x2F2A_B4B5_ED24_A692),
        (D::Duration(Second), number(-1), 0x5111_C7E4_7D78_4413),
        (D::Timestamp(Nanosecond, Some("UTC".into())), number(1_700_000_000_123_456_789), 0x4B03_27AF_11D4_A2E4),
        (D::Decimal32(9, 2), number(-12_345), 0x6353_BD61_6CEA_2AF6),
        (D::Decimal64(18, 2), number(-12_345), 0x6353_BD61_6CEA_2AF6),
        (D::Decimal64(18, 2), number(12_345), 0x970D_CD37_B14D_E550),
        (D::Decimal32(9, 0), number(i32::MIN.into()), 0x00CB_D623_4DDE_30B7),
        (D::Decimal64(18, 0), number(i64::MAX.into()), 0xB888_376F_1FE2_8A2A),
        (D::Decimal128(38, 0), number(10i128.pow(37)), 0x55CE_C52D_8D4C_EA21),
        (D::Decimal128(38, 0), number(-10i128.pow(37)), 0xEF79_71DD_3C3A_2729),
        (D::Decimal256(76, 0), number(-1), 0x36F6_A79E_EAF6_03F2),
        (D::Decimal256(76, 0), Key::Number(i256::from_i128(10).checked_pow(75).unwrap()), 0x1FF9_C9AA_5835_3BD3),
    ]
}

#[test]
fn keys_hash_as_specified() {
    for (data_type, key, hash) in vectors() {
        let found = key_ref(&key, &data_type).hash(0);
        assert_eq!(found, hash, "{key:?} as {data_type}: {found:#018X}");
    }
    assert_eq!(KeyRef::from("usr/bin/python3").hash(7), 0x577F_CAEA_54C2_25D3);
    assert_eq!(KeyRef::from(-1i8).hash(7), 0x3EA9_37A3_184E_65C1);
}

/// Walks the index file as section 3.3 tells, without the engine's reader, and gives the rows in the key's bucket whose
/// fingerprint agrees.
fn rows_by_hash(scratch: &Scratch, hash: u64) -> Vec<u32> {
    let dataset = scratch.path().join("m");
    let segment =
        dataset.read_dir().unwrap().flatten().find(|e| e.file_name().to_str().unwrap().starts_with("seg-")).unwrap();
    let file = std::fs::File::open(segment.path().join("index.arrow")).unwrap();
    let mut reader = arrow_ipc::reader::FileReader::try_new(file, None).unwrap();
    let number = |name: &str| reader.schema().metadata()[name].parse::<u64>().unwrap();
    let (blocks, per_block) = (number("pheon.blocks"), number("pheon.buckets_per_block"));
    assert_eq!(number("pheon.seed"), 0);
    assert_eq!(reader.schema().metadata()["pheon.hash"], "xxh3-64");
    let batch: RecordBatch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    let buckets = batch.column(0).as_any().downcast_ref::<arrow_array::FixedSizeBinaryArray>().unwrap();
    assert_eq!(buckets.len() as u64, blocks * per_block);
    let primary = (u128::from(hash) * u128::from(blocks * per_block)) >> 64;
    let bucket = buckets.value(primary as usize);
    let mut rows = Vec::new();
    for slot in 0..10 {
        let fp = u16::from_le_bytes(bucket[2 * slot..2 * slot + 2].try_into().unwrap());
        let row = u32::from_le_bytes(bucket[24 + 4 * slot..28 + 4 * slot].try_into().unwrap());
        if fp == hash as u16 && row != u32::MAX {
            rows.push(row);
        }
    }
    rows
}

#[test]
fn stored_keys_stand_where_their_hash_says() {
    for (data_type, key, hash) in vectors() {
        let keys = array(&data_type, &[Some(key.clone())]);
        let (scratch, map) = Scratch::with_map(&entries(keys.clone(), Arc::new(arrow_array::Int8Array::from(vec![1]))));
        assert_eq!(rows_by_hash(&scratch, hash), [0], "{key:?} as {data_type}");
        assert_eq!(map.find(key_ref(&key, &data_type)).unwrap(), Some(0), "{key:?} as {data_type}");
        assert_eq!(map.find_many(&keys, None).unwrap().value(0), 0, "{key:?} as {data_type}");
    }
}
