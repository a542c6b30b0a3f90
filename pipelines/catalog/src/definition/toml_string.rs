//! Places inside a TOML string, so that a mistake in a rule is shown where it was typed.

/// The byte in `written` (a string as it stands in the file, quotes included) at which byte `decoded`
/// of its value was written. Past the end: the closing quote.
pub(super) fn source_offset(written: &str, decoded: usize) -> usize {
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| written.starts_with(quote));
    // A string that does not begin with a quote is none; then the places are the same.
    let Some(quote) = quote else { return decoded.min(written.len()) };
    let mut at = quote.len();
    if quote.len() == 3 {
        // A newline right behind the opening quotes is not part of the value.
        at += newline(&written[at..]);
    }
    let end = written.len().saturating_sub(quote.len()).max(at);
    let escapes = quote.starts_with('"');
    let mut produced = 0;
    // Between the quotes there are whole characters, unless this is no TOML string.
    while let Some(rest) = written.get(at..end).filter(|rest| !rest.is_empty()) {
        let (taken, made) = match rest.as_bytes() {
            [b'\\', ..] if escapes => escape(rest),
            _ => rest.chars().next().map_or((1, 1), |c| (c.len_utf8(), c.len_utf8())),
        };
        if produced + made > decoded {
            return at;
        }
        produced += made;
        at += taken;
    }
    at.max(end.min(written.len())).min(written.len())
}

/// Bytes that an escape takes up and bytes that it stands for.
fn escape(rest: &str) -> (usize, usize) {
    let digits = match rest.as_bytes().get(1) {
        Some(b'x') => 2,
        Some(b'u') => 4,
        Some(b'U') => 8,
        // A backslash at the end of a line takes the white space behind it along.
        Some(b' ' | b'\t' | b'\r' | b'\n') => {
            let blank = rest[1..].len() - rest[1..].trim_start().len();
            return (1 + blank, 0);
        }
        // The escaped character; only an invalid string has one that is not ASCII.
        _ => return (1 + rest[1..].chars().next().map_or(0, char::len_utf8), 1),
    };
    let code = rest.get(2..2 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let made = code.and_then(char::from_u32).map_or(1, char::len_utf8);
    (rest.ceil_char_boundary((2 + digits).min(rest.len())), made)
}

fn newline(text: &str) -> usize {
    if text.starts_with("\r\n") { 2 } else { usize::from(text.starts_with('\n')) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toml::de::DeValue;

    #[test]
    fn quotes_escapes_and_line_ends_are_passed() {
        assert_eq!(source_offset("'a > b'", 2), 3);
        assert_eq!(source_offset(r#""a\t>""#, 2), 4);
        assert_eq!(source_offset(r#""\u0041>""#, 1), 7);
        assert_eq!(source_offset("\"\"\"\na\\\n  b\"\"\"", 1), 9);
        assert_eq!(source_offset("'''\nab'''", 1), 5);
        assert_eq!(source_offset("'ab'", 9), 3);
        assert_eq!(source_offset("", 1), 0);
    }

    proptest! {
        /// Each character of a value that toml reads is found where it was written.
        #[test]
        fn agrees_with_the_toml_reader(
            parts in proptest::collection::vec(
                prop_oneof![Just("a"), Just("\\t"), Just("\\\""), Just("\\u00e4"), Just("é"), Just(" ")],
                0..12,
            ),
        ) {
            let written = format!("\"{}\"", parts.concat());
            let parsed = DeValue::parse(&written).unwrap();
            let value = parsed.get_ref().as_str().unwrap().to_owned();
            let mut at = 1;
            let mut decoded = 0;
            for part in &parts {
                prop_assert_eq!(source_offset(&written, decoded), at);
                at += part.len();
                decoded += DeValue::parse(&format!("\"{part}\"")).unwrap()
                    .get_ref().as_str().unwrap().len();
            }
            prop_assert_eq!(decoded, value.len());
            prop_assert_eq!(source_offset(&written, decoded), written.len() - 1);
        }

        #[test]
        fn never_panics(written in ".{0,40}", decoded in 0usize..60) {
            prop_assert!(source_offset(&written, decoded) <= written.len());
        }
    }
}
