//! `resource.Quantity`: parsing, exact arithmetic and the canonical text. Owns the rules by which Kubernetes
//! rounds and re-serialises amounts of CPU and bytes; knows nothing of which fields hold them.
//!
//! An amount is a whole number of billionths (`n`), the finest grain that Kubernetes keeps; anything finer is
//! rounded away from zero when parsed.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

const NANOS: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
/// Binary quantities are capped here when parsed; decimal ones are not.
const MAX_BINARY: i128 = i64::MAX as i128 * NANOS;

/// The texts are those of apimachinery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes that a quantity was written with and keeps when printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySI,
    /// `12M`
    DecimalSI,
}

/// An amount with its format. Equality and order are those of the amount alone.
#[derive(Clone, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
    /// What was parsed, where Kubernetes takes it for canonical and prints it unchanged. (It looks at the digits
    /// only, so `1.500` and `+1` stay as they are.)
    text: Option<Box<str>>,
}

/// The text that Kubernetes prints for what was read.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    Quantity::parse(text).map(|q| q.to_string())
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSI, text: None };

    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let parts = scan(text)?;
        let (base, exponent, format) = interpret(parts.suffix)?;
        match base {
            2 => binary(text, &parts, exponent),
            _ => decimal(text, &parts, exponent, format),
        }
    }

    /// From a JSON value: a string, or a number as manifests often have it.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(s) => Self::parse(s.trim()),
            Value::Number(n) => Self::parse(&n.to_string()),
            _ => Err(QuantityError::Format),
        }
    }

    /// Whole units, as `DecimalSI` (counts, cores).
    pub fn from_units(units: i64) -> Self {
        Self::from_nanos(i128::from(units) * NANOS, Format::DecimalSI)
    }

    /// Thousandths, as `DecimalSI`.
    pub fn from_millis(millis: i64) -> Self {
        Self::from_nanos(i128::from(millis) * NANOS_PER_MILLI, Format::DecimalSI)
    }

    /// Whole bytes, as `BinarySI`.
    pub fn from_bytes(bytes: i64) -> Self {
        Self::from_nanos(i128::from(bytes) * NANOS, Format::BinarySI)
    }

    /// Billionths: nanocores and the like.
    pub fn from_nanos(nanos: i128, format: Format) -> Self {
        Self { nanos, format, text: None }
    }

    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whole units, rounded away from zero, saturating.
    pub fn value(&self) -> i64 {
        clamp(div_away(self.nanos, NANOS))
    }

    /// Thousandths, rounded away from zero, saturating.
    pub fn milli_value(&self) -> i64 {
        clamp(div_away(self.nanos, NANOS_PER_MILLI))
    }

    /// For ratios and display only; arithmetic stays exact.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// Whether the amount is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Rounds away from zero to thousandths, as the API server does with every resource list.
    pub fn round_up_to_millis(&mut self) {
        if self.nanos % NANOS_PER_MILLI != 0 {
            self.nanos = div_away(self.nanos, NANOS_PER_MILLI).saturating_mul(NANOS_PER_MILLI);
            self.text = None;
        }
    }

    /// Adds in place. A zero takes the format of the other side.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, self.nanos.saturating_add(other.nanos));
    }

    pub fn sub(&mut self, other: &Self) {
        self.combine(other, self.nanos.saturating_sub(other.nanos));
    }

    fn combine(&mut self, other: &Self, nanos: i128) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.nanos = nanos;
        self.text = None;
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse(s)
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = QuantityError;
    fn try_from(q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, Self::Error> {
        Self::parse(&q.0)
    }
}

impl From<&Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(q: &Quantity) -> Self {
        Self(q.to_string())
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos % NANOS == 0;
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == Format::BinarySI && whole && !small {
            write_binary(f, self.nanos / NANOS)
        } else {
            write_decimal(f, self.nanos, self.format)
        }
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, units: i128) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut amount, mut times) = (units, 0);
    while amount % 1024 == 0 && times < SUFFIXES.len() - 1 {
        amount /= 1024;
        times += 1;
    }
    write!(f, "{amount}{}", SUFFIXES[times])
}

fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: i128, format: Format) -> fmt::Result {
    let (mut mantissa, mut exponent) = (nanos, -9i32);
    while mantissa % 10 == 0 {
        mantissa /= 10;
        exponent += 1;
    }
    while exponent % 3 != 0 {
        mantissa *= 10;
        exponent -= 1;
    }
    let si = match exponent {
        _ if format == Format::DecimalExponent => None,
        -9 => Some("n"),
        -6 => Some("u"),
        -3 => Some("m"),
        0 => Some(""),
        3 => Some("k"),
        6 => Some("M"),
        9 => Some("G"),
        12 => Some("T"),
        15 => Some("P"),
        18 => Some("E"),
        _ => None,
    };
    match si {
        Some(suffix) => write!(f, "{mantissa}{suffix}"),
        None if exponent == 0 => write!(f, "{mantissa}"),
        None => write!(f, "{mantissa}e{exponent}"),
    }
}

/// A quantity's text taken apart. Numbers without digits count as 0.
struct Parts<'a> {
    positive: bool,
    /// Without leading zeros.
    num: &'a str,
    denom: &'a str,
    suffix: &'a str,
}

impl Parts<'_> {
    fn signed(&self, n: i128) -> i128 {
        if self.positive { n } else { -n }
    }

    /// Digits of the whole number that remains when the decimal point is left out.
    fn digits(&self) -> impl Iterator<Item = u8> + '_ {
        self.num.bytes().chain(self.denom.bytes())
    }

    fn digit_count(&self) -> i32 {
        i32::try_from(self.num.len() + self.denom.len()).unwrap_or(i32::MAX)
    }
}

fn scan(text: &str) -> Result<Parts<'_>, QuantityError> {
    let (positive, rest) = match text.as_bytes().first() {
        Some(b'-') => (false, &text[1..]),
        Some(b'+') => (true, &text[1..]),
        _ => (true, text),
    };
    let (num, rest) = split_while(rest.trim_start_matches('0'), |b| b.is_ascii_digit());
    let (denom, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_while(rest, |b| b.is_ascii_digit()),
        None => ("", rest),
    };
    let (_, tail) = split_while(suffix, |b| b"eEinumkKMGTP".contains(&b));
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts { positive, num: if num.is_empty() { "0" } else { num }, denom, suffix })
}

fn split_while(s: &str, keep: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = s.bytes().position(|b| !keep(b)).unwrap_or(s.len());
    s.split_at(end)
}

/// Base, exponent and family of a suffix.
fn interpret(suffix: &str) -> Result<(u8, i32, Format), QuantityError> {
    let (base, exponent) = match suffix {
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "" => (10, 0),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let n: i64 = digits.parse().map_err(|_| QuantityError::Suffix)?;
            // Far beyond what either end can hold, so the clamp changes no result.
            let n = n.clamp(-1_000_000, 1_000_000) as i32;
            return Ok((10, n, Format::DecimalExponent));
        }
    };
    Ok((base, exponent, if base == 2 { Format::BinarySI } else { Format::DecimalSI }))
}

fn decimal(text: &str, parts: &Parts<'_>, exponent: i32, format: Format) -> Result<Quantity, QuantityError> {
    let places = i32::try_from(parts.denom.len()).unwrap_or(i32::MAX);
    let scale = exponent.saturating_sub(places);
    let nanos = scaled(parts.digits(), scale.saturating_add(9));
    let exact = parts.digit_count() <= 18 && scale >= -9;
    let shifted = [parts.num, parts.denom].concat();
    let kept = exact && scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0');
    Ok(Quantity { nanos: parts.signed(nanos), format, text: kept.then(|| text.into()) })
}

fn binary(text: &str, parts: &Parts<'_>, exponent: i32) -> Result<Quantity, QuantityError> {
    let shift = exponent as u32;
    if parts.denom.is_empty() {
        let units = scaled(parts.digits(), 0);
        let fast = 15 - parts.digit_count() - exponent * 3 / 10 > 0;
        let nanos = units.saturating_mul(1 << shift).saturating_mul(NANOS).min(MAX_BINARY);
        let kept = fast && units & 7 != 0;
        return Ok(Quantity {
            nanos: parts.signed(nanos),
            format: Format::BinarySI,
            text: kept.then(|| text.into()),
        });
    }
    // digits × 2^shift × 10^9 / 10^places; what overflows is beyond the cap. Places after the ninth add a part of a
    // nano each, exact up to the 27th.
    let (places, rest) = parts.denom.split_at(parts.denom.len().min(9));
    let digits = scaled(parts.num.bytes().chain(places.bytes()), 0);
    let numerator = digits.checked_mul(1 << shift).and_then(|n| n.checked_mul(NANOS));
    let mut nanos = numerator.map_or(MAX_BINARY, |n| div_away(n, 10i128.pow(places.len() as u32)));
    let rest = &rest[..rest.len().min(18)];
    nanos = nanos.saturating_add(div_away(scaled(rest.bytes(), 0) << shift, 10i128.pow(rest.len() as u32)));
    let nanos = nanos.min(MAX_BINARY);
    let format = if nanos > 0 && nanos < NANOS { Format::DecimalSI } else { Format::BinarySI };
    Ok(Quantity { nanos: parts.signed(nanos), format, text: None })
}

/// digits × 10^power, rounded up where the power is negative, saturating.
fn scaled(digits: impl Iterator<Item = u8>, power: i32) -> i128 {
    let mut all: Vec<u8> = digits.skip_while(|d| *d == b'0').collect();
    if all.is_empty() {
        return 0;
    }
    let mut up = false;
    let mut power = power;
    if power < 0 {
        let dropped = all.len().min(power.unsigned_abs() as usize);
        up = all.split_off(all.len() - dropped).iter().any(|d| *d != b'0');
        power = 0;
    }
    let whole = all.iter().try_fold(0i128, |n, d| n.checked_mul(10)?.checked_add(i128::from(d - b'0')));
    let whole = whole.and_then(|n| n.checked_add(i128::from(up)));
    let factor = 10i128.checked_pow(power.unsigned_abs());
    match (whole, factor) {
        (Some(0), _) => 0,
        (Some(n), Some(f)) => n.saturating_mul(f),
        _ => i128::MAX,
    }
}

fn div_away(n: i128, by: i128) -> i128 {
    let (q, r) = (n / by, n % by);
    if r == 0 { q } else { q + n.signum() }
}

fn clamp(n: i128) -> i64 {
    n.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_texts() {
        let cases = [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1024Ki", "1Mi"),
            ("1e3", "1e3"),
            ("1000", "1k"),
            ("0.1Gi", "107374182400m"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("100M", "100M"),
            ("1048576Ki", "1Gi"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1e-1", "100e-3"),
            ("0.05", "50m"),
            ("0.1", "100m"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("1023", "1023"),
            ("8Ki", "8Ki"),
            ("1E", "1E"),
            ("1000E", "1e21"),
            ("1.2345", "1234500u"),
            ("0.9n", "1n"),
            ("1n", "1n"),
            ("1000n", "1u"),
            ("-1", "-1"),
            ("-0.5", "-500m"),
            ("+1", "+1"),
            ("+1000", "1k"),
            ("1.", "1."),
            ("m", "0"),
            ("0m", "0"),
            ("0.0", "0"),
            ("00", "0"),
            ("1.500", "1.500"),
            ("8Ei", "9223372036854775807"),
            ("12e6", "12e6"),
            ("12000e3", "12e6"),
            ("1E3", "1E3"),
            ("1e30", "1e30"),
            ("1.5e3", "1500"),
            ("100k", "100k"),
            ("1234567890123456789012", "1234567890123456789012"),
            ("-1.5Gi", "-1536Mi"),
            ("0.000000001Ki", "1024n"),
            ("123456n", "123456n"),
            ("0.00000000001", "1n"),
        ];
        for (text, want) in cases {
            assert_eq!(canonical(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn refused_texts() {
        use QuantityError as E;
        let cases = [
            ("", E::Format),
            ("abc", E::Format),
            ("1 Ki", E::Format),
            ("1KiB", E::Format),
            ("1.2.3", E::Format),
            ("1mm", E::Suffix),
            ("--1", E::Suffix),
            ("1e", E::Suffix),
            ("1K", E::Suffix),
            ("1i", E::Suffix),
            ("1ee3", E::Suffix),
            ("1g", E::Format),
            ("é", E::Format),
            (" 1", E::Format),
        ];
        for (text, want) in cases {
            assert_eq!(canonical(text), Err(want), "{text:?}");
        }
        let message = E::Format.to_string();
        assert!(message.ends_with("'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"), "{message}");
    }

    #[test]
    fn rounding_and_arithmetic() {
        let q = |s: &str| Quantity::parse(s).unwrap();
        assert_eq!((q("1.5").value(), q("1.5").milli_value()), (2, 1500));
        assert_eq!((q("1n").value(), q("1n").milli_value()), (1, 1));
        assert_eq!(q("-1.5").value(), -2);
        assert_eq!(q("1e30").value(), i64::MAX);
        let mut a = Quantity::ZERO;
        a.add(&q("1Gi"));
        a.add(&q("512Mi"));
        assert_eq!(a.to_string(), "1536Mi");
        a.sub(&q("1536Mi"));
        assert_eq!((a.to_string().as_str(), a.is_zero()), ("0", true));
        assert!(q("1Mi") > q("1M") && q("1000m") == q("1") && q("0.1") < q("101m"));
        let mut fine = q("100001u");
        fine.round_up_to_millis();
        assert_eq!(fine.to_string(), "101m");
        assert_eq!(Quantity::from_millis(250).to_string(), "250m");
        assert_eq!(Quantity::from_bytes(3 << 20).to_string(), "3Mi");
        assert_eq!(Quantity::from_units(2000).to_string(), "2k");
        assert_eq!(Quantity::from_nanos(5_000, Format::DecimalSI).to_string(), "5u");
        assert_eq!(Quantity::from_value(&serde_json::json!(0.5)).unwrap().to_string(), "500m");
        assert!(Quantity::from_value(&serde_json::json!(true)).is_err());
    }

    proptest! {
        #[test]
        fn canonical_is_idempotent_and_keeps_the_amount(
            sign in "[+-]?", num in "[0-9]{0,12}", denom in "(\\.[0-9]{0,12})?",
            suffix in "(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]|E[0-9])?",
        ) {
            let text = format!("{sign}{num}{denom}{suffix}");
            if let Ok(first) = Quantity::parse(&text) {
                let again = Quantity::parse(&first.to_string()).unwrap();
                prop_assert_eq!(&first, &again);
                prop_assert_eq!(first.to_string(), again.to_string());
            }
        }

        #[test]
        fn any_text_is_answered(text in "\\PC*") {
            let _ = canonical(&text);
        }

        #[test]
        fn adding_and_taking_away(a in any::<i64>(), b in any::<i64>()) {
            let mut q = Quantity::from_millis(a);
            q.add(&Quantity::from_millis(b));
            q.sub(&Quantity::from_millis(b));
            prop_assert_eq!(q.milli_value(), a);
        }
    }
}
