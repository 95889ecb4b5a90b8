//! Base64 as JSON carries bytes: the standard alphabet with padding.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (n >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    out
}

/// The bytes, or `None` where decoding would have refused the text already.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let body = digits.len() - digits.iter().rev().take_while(|b| **b == b'=').count();
    if !digits.len().is_multiple_of(4) || digits.len() - body > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3);
    for chunk in digits[..body].chunks(4) {
        let mut n = 0u32;
        for digit in chunk {
            let value = ALPHABET.iter().position(|c| c == digit)?;
            n = n << 6 | u32::try_from(value).ok()?;
        }
        n <<= 6 * (4 - chunk.len());
        out.extend(&n.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

/// How many bytes the text stands for.
pub(super) fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for (plain, coded) in [("", ""), ("v", "dg=="), ("vi", "dmk="), ("via", "dmlh"), ("ÿ~", "w79+")] {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded).as_deref(), Some(plain.as_bytes()), "{coded}");
            assert_eq!(decoded_len(coded), plain.len());
        }
        assert_eq!(decode("!!"), None);
        assert_eq!(decode("dg="), None);
    }
}
