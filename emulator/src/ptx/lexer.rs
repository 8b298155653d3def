//! Cuts PTX text into tokens.

/// A token and the line it stands on (from 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Line, from 1.
    pub line: u32,
}

/// The kinds of token.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// An identifier, opcode, directive or special register, dots and `::` included.
    Word(String),
    /// An integer.
    Int(u64),
    /// The bits of a hexadecimal single.
    F32(u32),
    /// The bits of a hexadecimal double or of a decimal literal.
    F64(u64),
    /// A string in quotes.
    Text(String),
    /// Any other character.
    Mark(char),
}

fn starts_word(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn in_word(c: u8) -> bool {
    starts_word(c) || c.is_ascii_digit()
}

/// All tokens of `source`, comments left out.
pub fn tokens(source: &str) -> Result<Vec<Token>, String> {
    let text = source.as_bytes();
    let (mut at, mut line, mut out) = (0, 1, Vec::new());
    while at < text.len() {
        let c = text[at];
        let rest = &text[at..];
        if c == b'\n' {
            line += 1;
            at += 1;
        } else if c.is_ascii_whitespace() {
            at += 1;
        } else if rest.starts_with(b"//") {
            at += rest.iter().position(|&c| c == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            let end = rest.windows(2).position(|w| w == b"*/").ok_or(format!("line {line}: comment without end"))?;
            line += rest[..end].iter().filter(|&&c| c == b'\n').count() as u32;
            at += end + 2;
        } else if c == b'"' {
            let len = rest[1..].iter().position(|&c| c == b'"').ok_or(format!("line {line}: string without end"))?;
            out.push(Token { kind: Kind::Text(String::from_utf8_lossy(&rest[1..1 + len]).into_owned()), line });
            at += len + 2;
        } else if c.is_ascii_digit() {
            let len = number_length(rest);
            let word = &source[at..at + len];
            let kind = number(word).ok_or_else(|| format!("line {line}: `{word}` is no number"))?;
            out.push(Token { kind, line });
            at += len;
        } else if starts_word(c) {
            let mut len = 1;
            while at + len < text.len() {
                let next = &text[at + len..];
                if c == b'.' && next[0] == b'.' {
                    // `.reg.b32` is two directives.
                    break;
                } else if in_word(next[0]) {
                    len += 1;
                } else if next.starts_with(b"::") {
                    len += 2;
                } else {
                    break;
                }
            }
            out.push(Token { kind: Kind::Word(source[at..at + len].to_string()), line });
            at += len;
        } else if c.is_ascii() {
            out.push(Token { kind: Kind::Mark(c as char), line });
            at += 1;
        } else {
            return Err(format!("line {line}: a character outside ASCII"));
        }
    }
    Ok(out)
}

/// Length of the number at the start of `text`: digits, letters, and for decimal floats a dot and a signed exponent.
fn number_length(text: &[u8]) -> usize {
    let hexadecimal = text.len() > 1 && text[0] == b'0' && text[1].is_ascii_alphabetic();
    let mut len = 1;
    while len < text.len() {
        let c = text[len];
        let exponent_sign = matches!(c, b'+' | b'-') && matches!(text[len - 1], b'e' | b'E');
        if c.is_ascii_alphanumeric() || (!hexadecimal && (c == b'.' || exponent_sign)) {
            len += 1;
        } else {
            break;
        }
    }
    len
}

fn number(word: &str) -> Option<Kind> {
    let lower = word.to_ascii_lowercase();
    if let Some(bits) = lower.strip_prefix("0f") {
        return u32::from_str_radix(bits, 16).ok().map(Kind::F32);
    }
    if let Some(bits) = lower.strip_prefix("0d") {
        return u64::from_str_radix(bits, 16).ok().map(Kind::F64);
    }
    let digits = lower.trim_end_matches('u');
    let parsed = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()
    } else if let Some(binary) = digits.strip_prefix("0b") {
        u64::from_str_radix(binary, 2).ok()
    } else if digits.len() > 1 && digits.starts_with('0') && !digits.contains('.') {
        u64::from_str_radix(digits, 8).ok()
    } else {
        digits.parse().ok()
    };
    parsed.map(Kind::Int).or_else(|| lower.parse::<f64>().ok().map(|x| Kind::F64(x.to_bits())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_lines() {
        let got = tokens("ld.global.L2::128B.f32 %f1, [%rd2+-4]; // note\n/* two\nlines */ 0f3F800000 0x1FU 1e-3 010")
            .unwrap();
        let kinds: Vec<Kind> = got.iter().map(|t| t.kind.clone()).collect();
        let word = |w: &str| Kind::Word(w.to_string());
        let expected = [
            word("ld.global.L2::128B.f32"),
            word("%f1"),
            Kind::Mark(','),
            Kind::Mark('['),
            word("%rd2"),
            Kind::Mark('+'),
            Kind::Mark('-'),
            Kind::Int(4),
            Kind::Mark(']'),
            Kind::Mark(';'),
            Kind::F32(0x3f80_0000),
            Kind::Int(31),
            Kind::F64(1e-3f64.to_bits()),
            Kind::Int(8),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(got.last().unwrap().line, 3);
    }

    #[test]
    fn a_label_is_no_part_of_the_next_word() {
        assert_eq!(tokens(".reg.b16 a;").unwrap(), tokens(".reg .b16 a;").unwrap());
        let got = tokens("$L__BB0_2:\nret;").unwrap();
        assert_eq!(got[0].kind, Kind::Word("$L__BB0_2".into()));
        assert_eq!(got[1].kind, Kind::Mark(':'));
    }
}
