//! Sizes, counts, durations and times as people write and read them.

use std::time::Duration;

use arrow_array::TimestampMillisecondArray;

/// Bytes in a text such as `2GB` (powers of 1000), `512MiB` or `512M` (powers of 1024), `1.5G`, `1000000`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let error = || format!("{text:?} is no size; expected a number with a unit, such as 2GB, 512MiB or 1.5G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let (base, unit) = match unit.strip_suffix("ib") {
        Some(prefix) => (1024f64, prefix),
        None => match unit.strip_suffix('b') {
            Some(prefix) => (1000f64, prefix),
            None => (1024f64, unit.as_str()),
        },
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|u| *u == unit).ok_or_else(error)?;
    let number: f64 = digits.trim().parse().map_err(|_| error())?;
    let bytes = number * base.powi(power as i32);
    if !(0.0..=1e18).contains(&bytes) {
        return Err(error());
    }
    Ok(bytes as u64)
}

/// `1.2 GiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut shown = format!("{bytes} B");
    for unit in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown = format!("{value:.1} {unit}");
    }
    shown
}

/// `1,234,567`.
pub(crate) fn show_count(n: u64) -> String {
    let digits = n.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `594 k rows/s`.
pub(crate) fn show_rate(rows_per_second: f64) -> String {
    match rows_per_second {
        r if r >= 1e6 => format!("{:.2} M rows/s", r / 1e6),
        r if r >= 1e4 => format!("{:.0} k rows/s", r / 1e3),
        r => format!("{r:.0} rows/s"),
    }
}

/// `1:02:03`, `2:03`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `2026-11-21 20:32:07Z`.
pub(crate) fn show_time(unix_ms: u64) -> String {
    let time = TimestampMillisecondArray::from(vec![unix_ms.cast_signed()]);
    time.value_as_datetime(0).map_or_else(|| format!("{unix_ms} ms"), |t| t.format("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A number of seconds, for clap.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s: &f64| (0.0..=1e9).contains(s)).ok_or_else(|| "expected a number of seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("2GB", 2_000_000_000),
            ("2gb", 2_000_000_000),
            ("1.5GiB", 3 << 29),
            ("512M", 512 << 20),
            ("64 MiB", 64 << 20),
            ("1000", 1000),
            ("7B", 7),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "x", "-1GB", "1XB", "nan", "1e300GB", "inf"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(1536), "1.5 KiB");
        assert_eq!(show_size(3 << 29), "1.5 GiB");
    }

    #[test]
    fn counts_rates_and_times() {
        assert_eq!(show_count(0), "0");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_count(7_315_688), "7,315,688");
        assert_eq!(show_rate(1_234_567.0), "1.23 M rows/s");
        assert_eq!(show_rate(15_000.0), "15 k rows/s");
        assert_eq!(show_duration(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(show_duration(Duration::from_millis(61_400)), "1:01");
        assert_eq!(show_time(1_706_702_400_500), "2024-01-31 12:00:00Z");
        assert_eq!(show_time(u64::MAX / 2), format!("{} ms", u64::MAX / 2));
    }
}
