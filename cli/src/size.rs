//! Sizes on the command line: 512m, 2g, 65536.

/// Parses a number of bytes with an optional suffix k, m or g (powers of 1024, either case, an optional trailing `b` or `ib`).
pub fn parse(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("'{text}' is not a size: write 512m or 2g")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is not a size: write 512m or 2g"))?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(|| format!("'{text}' is too large"))?;
    if bytes < 16 << 20 {
        return Err(format!("'{text}' is too small: a sandbox needs at least 16m"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn suffixes_are_powers_of_1024() {
        assert_eq!(parse("16m"), Ok(16 << 20));
        assert_eq!(parse("2GiB"), Ok(2 << 30));
        assert_eq!(parse("33554432"), Ok(32 << 20));
        assert!(parse("1k").is_err());
        assert!(parse("x").is_err());
        assert!(parse("99999999999g").is_err());
        assert!(parse("").is_err());
    }
}
