//! Times in the forms that AWS writes them in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Day, month, year, time of day; all of fixed width.
fn parts(time: SystemTime) -> [String; 4] {
    // Sun, 06 Nov 1994 08:49:37 GMT
    let text = httpdate::fmt_http_date(time);
    [5..7, 8..11, 12..16, 17..25].map(|range| text.get(range).unwrap_or_default().to_owned())
}

/// `06/Nov/1994:08:49:37 +0000`, as in an access log.
pub fn access_log(time: SystemTime) -> String {
    let [day, month, year, clock] = parts(time);
    format!("{day}/{month}/{year}:{clock} +0000")
}

/// `1994-11-06T08:49:37.123+0000`, as AWS Lambda tells when a function was changed.
pub fn iso(unix_ns: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(unix_ns);
    let [day, month, year, clock] = parts(time);
    let number = MONTHS.iter().position(|m| *m == month).map_or(1, |i| i + 1);
    format!("{year}-{number:02}-{day}T{clock}.{:03}+0000", unix_ns / 1_000_000 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_aws_does() {
        let ns = 784_111_777_123_000_000;
        assert_eq!(access_log(UNIX_EPOCH + Duration::from_nanos(ns)), "06/Nov/1994:08:49:37 +0000");
        assert_eq!(iso(ns), "1994-11-06T08:49:37.123+0000");
    }
}
