//! How numbers are written for people.

/// A whole number in full, thousands apart: `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number to `digits` significant digits: `0.0123`, `1.23`, `1,230`, `12.3k`, `1.23M`.
///
/// Numbers below ten thousand are written out; a fourth digit that this takes is not hidden.
pub(crate) fn number(value: f64, digits: u8) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let rounded = round(value, digits.max(1));
    if rounded.abs() < 10_000.0 {
        return plain(value, rounded, digits);
    }
    let (scale, suffix) = match rounded.abs() {
        size if size < 1e6 => (1e3, "k"),
        size if size < 1e9 => (1e6, "M"),
        size if size < 1e12 => (1e9, "G"),
        _ => (1e12, "T"),
    };
    let scaled = rounded / scale;
    format!("{}{suffix}", plain(scaled, scaled, digits))
}

/// A latency in milliseconds as a number and the unit that suits its size.
pub(crate) fn millis(value: f64) -> (String, &'static str) {
    let (scale, unit) = match round(value, 3).abs() {
        size if size > 0.0 && size < 0.1 => (1e-3, "us"),
        size if size < 1e3 => (1.0, "ms"),
        size if size < 6e5 => (1e3, "s"),
        size if size < 3.6e7 => (6e4, "min"),
        _ => (3.6e6, "h"),
    };
    (number(value / scale, 3), unit)
}

/// A share as a percentage with one decimal, never 0.0 or 100.0 unless it is exactly none or all.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    match text.as_str() {
        "0.0" if share > 0.0 => "<0.1".to_owned(),
        "100.0" if share < 1.0 => ">99.9".to_owned(),
        _ => text,
    }
}

/// A change as a percentage with a sign and one decimal; three significant digits above 1000 %.
pub(crate) fn change(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() >= 1000.0 {
        return format!("{}{}", if percent > 0.0 { "+" } else { "" }, number(percent, 3));
    }
    match format!("{percent:+.1}").as_str() {
        "+0.0" | "-0.0" => "0.0".to_owned(),
        text => text.to_owned(),
    }
}

/// `value` rounded to `digits` significant digits.
fn round(value: f64, digits: u8) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    // Printing rounds correctly; powers of ten by multiplication would not.
    format!("{value:.*e}", usize::from(digits) - 1).parse().expect("a float as it was printed")
}

/// A number below ten thousand, without a suffix. `rounded` says how many digits stand before the point.
fn plain(value: f64, rounded: f64, digits: u8) -> String {
    if rounded == 0.0 {
        return "0".to_owned();
    }
    let magnitude = rounded.abs().log10().floor() as i32;
    let decimals = (i32::from(digits) - 1 - magnitude).max(0) as usize;
    let text = format!("{:.*}", decimals, value.abs());
    let sign = if value < 0.0 { "-" } else { "" };
    match text.parse::<u64>() {
        Ok(whole) => format!("{sign}{}", count(whole)),
        Err(_) => format!("{sign}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_written_in_full() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let cases = [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (0.999_9, "1.00"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (123.4, "123"),
            (1234.0, "1,234"),
            (9999.0, "10.0k"),
            (12_345.0, "12.3k"),
            (999_900.0, "1.00M"),
            (1_234_567.0, "1.23M"),
            (-1234.0, "-1,234"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value, 3), text, "{value}");
        }
    }

    #[test]
    fn latencies_are_written_in_the_unit_that_suits_them() {
        let cases = [
            (0.0, ("0", "ms")),
            (0.012_34, ("12.3", "us")),
            (999.4, ("999", "ms")),
            (999.6, ("1.00", "s")),
            (61_234.0, ("61.2", "s")),
            (900_000.0, ("15.0", "min")),
            (36e6, ("10.0", "h")),
        ];
        for (value, (text, unit)) in cases {
            assert_eq!(millis(value), (text.to_owned(), unit), "{value}");
        }
    }

    #[test]
    fn changes_have_their_sign() {
        let cases = [(0.123_4, "+12.3"), (-0.5, "-50.0"), (0.000_1, "0.0"), (-0.0, "0.0"), (12.34, "+1,234")];
        for (value, text) in cases {
            assert_eq!(change(value), text);
        }
    }

    #[test]
    fn a_percentage_is_none_or_all_only_when_it_is() {
        let cases = [(0.0, "0.0"), (0.000_1, "<0.1"), (0.4567, "45.7"), (0.999_9, ">99.9"), (1.0, "100.0")];
        for (value, text) in cases {
            assert_eq!(percent(value), text);
        }
    }
}
