//! Numbers in sentences.

/// A number of three significant digits, written out.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = if value == 0.0 { 0 } else { value.abs().log10().floor() as i32 };
    let decimals = (2 - magnitude).clamp(0, 4) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A share as a whole percentage.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Tokens in thousands.
pub(crate) fn tokens(count: f64) -> String {
    if count < 10_000.0 { format!("{count:.0}") } else { format!("{}k", number((count / 1000.0).round())) }
}

/// A length of time in the unit that suits it.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{} ms", number(v * 1000.0)),
        v if v < 120.0 => format!("{} s", number(v)),
        v if v < 7200.0 => format!("{} min", number(v / 60.0)),
        v => format!("{} h", number(v / 3600.0)),
    }
}

/// `1 replica`, `2 replicas`.
pub(crate) fn plural(count: u32, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_size() {
        let cases =
            [(0.0, "0"), (0.1234, "0.123"), (12.0, "12"), (12.34, "12.3"), (1234.5, "1234"), (99.96, "100")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            (tokens(430_123.0), percent(0.1549), seconds(277.8)),
            ("430k".into(), "15 %".into(), "4.63 min".into())
        );
    }
}
