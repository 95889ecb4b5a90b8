//! Scalars that have a form of their own: times, quantities, bytes. Each function returns the canonical text, or what
//! Go's decoder says.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::own;
use crate::quantity;

/// Go's decoder accepts stray bits in the last symbol.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// `metav1.Time`: RFC 3339 in, whole seconds of UTC out.
pub(super) fn time(text: &str) -> Result<String, String> {
    if is_canonical_time(text) && text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    timestamp(text, "2006-01-02T15:04:05Z07:00").map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// `metav1.MicroTime`: six digits of a second out.
pub(super) fn micro_time(text: &str) -> Result<String, String> {
    timestamp(text, "2006-01-02T15:04:05.000000Z07:00")
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

fn timestamp(text: &str, layout: &str) -> Result<jiff::Timestamp, String> {
    // jiff takes more than RFC 3339: a blank for the T, a zone in brackets.
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes.get(10) == Some(&b'T')
        && bytes.get(16) == Some(&b':')
        && !text.contains('[')
        && !text.starts_with(['+', '-']);
    match text.parse() {
        Ok(t) if shaped => Ok(t),
        _ => Err(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")),
    }
}

fn is_canonical_time(text: &str) -> bool {
    const FORM: &[u8; 20] = b"0000-00-00T00:00:00Z";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(b, f)| if *f == b'0' { b.is_ascii_digit() } else { b == *f })
}

/// `metav1.Duration`: the text is kept.
pub(super) fn duration(text: &str) -> Result<String, String> {
    match own::duration(text.strip_prefix('-').unwrap_or(text)) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("time: invalid duration {text:?}")),
    }
}

pub(super) fn quantity(text: &str) -> Result<String, String> {
    quantity::canonical(text.trim()).map_err(|e| e.to_string())
}

/// base64 with padding; line breaks inside are dropped.
pub(super) fn bytes(text: String) -> Result<String, String> {
    let text = if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "") } else { text };
    match BASE64.decode(&text) {
        Ok(decoded) => Ok(canonical_base64(text, &decoded)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

/// Encodes again where the last symbol may have held stray bits.
fn canonical_base64(text: String, decoded: &[u8]) -> String {
    if text.ends_with('=') { BASE64.encode(decoded) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_canonical() {
        for (text, want) in [
            ("2026-01-01T00:00:00Z", Some("2026-01-01T00:00:00Z")),
            ("2026-01-01T02:00:00.9+02:00", Some("2026-01-01T00:00:00Z")),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01 00:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01", None),
            ("", None),
        ] {
            assert_eq!(time(text).ok().as_deref(), want, "{text}");
        }
        assert_eq!(micro_time("2026-01-01T00:00:00Z").as_deref(), Ok("2026-01-01T00:00:00.000000Z"));
        assert_eq!(micro_time("2026-01-01T00:00:00.1234567Z").as_deref(), Ok("2026-01-01T00:00:00.123456Z"));
    }

    #[test]
    fn base64_is_checked() {
        for (text, want) in [
            ("aGk=", Ok("aGk=")),
            ("", Ok("")),
            ("aG\nk=", Ok("aGk=")),
            ("aGl=", Ok("aGk=")),
            ("a b=", Err("illegal base64 data at input byte 1")),
            ("aGk", Err("illegal base64 data at input byte 3")),
        ] {
            let got = bytes(text.to_owned());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{text}");
        }
    }
}
