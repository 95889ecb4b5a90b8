//! Small checks that many kinds share, and the errors that need more than one argument.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::field::{FieldError, FieldErrorKind};
use crate::quantity::Quantity;
use crate::rules::names;
use crate::rules::path::Path;
use crate::rules::value::{self, int, opt_int, text};

pub(super) type Errors = Vec<FieldError>;

pub(super) const IMMUTABLE: &str = "field is immutable";
const NEGATIVE: &str = "must be greater than or equal to 0";
const NOT_POSITIVE: &str = "must be greater than zero";
const TWO_SOURCES: &str = "may not specify more than 1 volume type";

/// One `Invalid` error for each complaint about `value`.
pub(super) fn invalid_each(
    errs: &mut Errors,
    path: impl Display + Copy,
    value: &str,
    complaints: Vec<String>,
) {
    let shown = json!(value);
    errs.extend(complaints.iter().map(|why| FieldError::invalid(path, &shown, why)));
}

pub(super) fn too_long(path: impl Display, max: usize) -> FieldError {
    FieldError::new(FieldErrorKind::TooLong, path, format!("Too long: may not be more than {max} bytes"))
}

pub(super) fn too_many(path: impl Display, count: usize, max: usize) -> FieldError {
    FieldError::new(
        FieldErrorKind::TooMany,
        path,
        format!("Too many: {count}: must have at most {max} items"),
    )
}

/// A plain number that may not be negative.
pub(super) fn nonnegative(errs: &mut Errors, v: &Value, key: &str, path: &Path<'_>) {
    if int(v, key) < 0 {
        errs.push(FieldError::invalid(path.child(key), &json!(int(v, key)), NEGATIVE));
    }
}

pub(super) fn nonnegative_all(errs: &mut Errors, v: &Value, keys: &[&str], path: &Path<'_>) {
    for key in keys {
        nonnegative(errs, v, key, path);
    }
}

pub(super) fn required_text(errs: &mut Errors, v: &Value, key: &str, path: &Path<'_>) {
    if text(v, key).is_empty() {
        errs.push(FieldError::required(path.child(key), ""));
    }
}

/// A text that must be one of `supported`; empty counts as a wrong value.
pub(super) fn one_of(errs: &mut Errors, value: &str, supported: &[&str], path: impl Display) {
    if !supported.contains(&value) {
        errs.push(FieldError::not_supported(path, &json!(value), supported));
    }
}

/// A text that must be set, to one of `supported`.
pub(super) fn required_one_of(errs: &mut Errors, value: &str, supported: &[&str], path: impl Display) {
    if value.is_empty() {
        errs.push(FieldError::required(path, ""));
    } else {
        one_of(errs, value, supported, path);
    }
}

/// A pointer to a text that, if set, must be one of `supported`.
pub(super) fn optional_one_of(errs: &mut Errors, v: &Value, key: &str, supported: &[&str], path: &Path<'_>) {
    if value::has(v, key) {
        one_of(errs, text(v, key), supported, path.child(key));
    }
}

pub(super) fn immutable(errs: &mut Errors, new: Option<&Value>, old: Option<&Value>, path: impl Display) {
    if !value::equal(new, old) {
        errs.push(FieldError::invalid(path, new.unwrap_or(&Value::Null), IMMUTABLE));
    }
}

pub(super) fn port_number(errs: &mut Errors, port: i64, path: impl Display) {
    if !(1..=65535).contains(&port) {
        errs.push(FieldError::invalid(path, &json!(port), "must be between 1 and 65535, inclusive"));
    }
}

/// `IntOrString` as a port: a number or a port's name.
pub(super) fn port_number_or_name(errs: &mut Errors, v: Option<&Value>, path: impl Display + Copy) {
    match v.and_then(Value::as_str) {
        Some(name) => invalid_each(errs, path, name, names::port_name(name)),
        None => port_number(errs, v.and_then(Value::as_i64).unwrap_or_default(), path),
    }
}

pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub(super) fn ip(errs: &mut Errors, address: &str, path: impl Display) -> Option<IpAddr> {
    let parsed = address.parse().ok();
    if parsed.is_none() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errs.push(FieldError::invalid(path, &json!(address), why));
    }
    parsed
}

pub(super) fn cidr(errs: &mut Errors, text: &str, path: impl Display) {
    if !is_cidr(text) {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errs.push(FieldError::invalid(path, &json!(text), why));
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let plain = !bits.is_empty()
        && bits.bytes().all(|b| b.is_ascii_digit())
        && (bits == "0" || !bits.starts_with('0'));
    let max = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    plain && bits.parse::<u8>().is_ok_and(|b| b <= max)
}

/// Addresses that make no sense as endpoints or external addresses.
pub(super) fn non_special_ip(errs: &mut Errors, address: &str, path: impl Display + Copy) {
    let shown = json!(address);
    let Ok(ip) = address.parse::<IpAddr>() else {
        errs.push(FieldError::invalid(path, &shown, "must be a valid IP address"));
        return;
    };
    if ip.is_unspecified() {
        errs.push(FieldError::invalid(path, &shown, &format!("may not be unspecified ({address})")));
    }
    if ip.is_loopback() {
        let why = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        errs.push(FieldError::invalid(path, &shown, why));
    }
    if is_link_local(ip) {
        let why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        errs.push(FieldError::invalid(path, &shown, why));
    }
    if is_link_local_multicast(ip) {
        let why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errs.push(FieldError::invalid(path, &shown, why));
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => Ipv4Addr::is_link_local(&a),
        IpAddr::V6(a) => Ipv6Addr::is_unicast_link_local(&a),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.octets()[..3] == [224, 0, 0],
        IpAddr::V6(a) => a.segments()[0] & 0xff0f == 0xff02,
    }
}

/// The quantity of a decoded object, where decoding has already refused malformed ones.
pub(super) fn quantity(v: &Value) -> Quantity {
    Quantity::from_value(v).unwrap_or(Quantity::ZERO)
}

pub(super) fn nonnegative_quantity(errs: &mut Errors, v: &Value, path: impl Display) {
    if quantity(v).is_negative() {
        errs.push(FieldError::invalid(path, v, NEGATIVE));
    }
}

pub(super) fn positive_quantity(errs: &mut Errors, v: &Value, path: impl Display) -> bool {
    let good = quantity(v) > Quantity::ZERO;
    if !good {
        errs.push(FieldError::invalid(path, v, NOT_POSITIVE));
    }
    good
}

pub(super) fn positive_int(errs: &mut Errors, v: i64, path: impl Display) {
    if v <= 0 {
        errs.push(FieldError::invalid(path, &json!(v), NOT_POSITIVE));
    }
}

/// User and group ids.
pub(super) fn id(errs: &mut Errors, v: &Value, key: &str, path: &Path<'_>) {
    if let Some(n) = opt_int(v, key) {
        id_value(errs, n, path.child(key));
    }
}

pub(super) fn id_value(errs: &mut Errors, n: i64, path: impl Display) {
    if !(0..=i64::from(i32::MAX)).contains(&n) {
        errs.push(FieldError::invalid(path, &json!(n), "must be between 0 and 2147483647, inclusive"));
    }
}

/// A path below some directory: relative, and without `..`.
pub(super) fn descending_path(errs: &mut Errors, target: &str, path: impl Display + Copy) {
    if target.starts_with('/') {
        errs.push(FieldError::invalid(path, &json!(target), "must be a relative path"));
    }
    no_backsteps(errs, target, path);
}

pub(super) fn no_backsteps(errs: &mut Errors, target: &str, path: impl Display) {
    if target.split('/').any(|part| part == "..") {
        errs.push(FieldError::invalid(path, &json!(target), "must not contain '..'"));
    }
}

/// As [`descending_path`], and not starting with `..`, which volume plugins keep for themselves.
pub(super) fn non_reserved_path(errs: &mut Errors, target: &str, path: impl Display + Copy) {
    descending_path(errs, target, path);
    if target.starts_with("..") && !target.starts_with("../") && target != ".." {
        errs.push(FieldError::invalid(path, &json!(target), "must not start with '..'"));
    }
}

/// Checks a union of sources: validates the first that is set and forbids the others.
#[derive(Default)]
pub(super) struct OneSource {
    found: bool,
}

impl OneSource {
    /// Whether this source is the first one, hence to be validated.
    pub(super) fn take(&mut self, errs: &mut Errors, present: bool, path: impl Display) -> bool {
        if !present {
            return false;
        }
        if self.found {
            errs.push(FieldError::forbidden(path, TWO_SOURCES));
            return false;
        }
        self.found = true;
        true
    }

    pub(super) fn finish(self, errs: &mut Errors, path: impl Display) {
        if !self.found {
            errs.push(FieldError::required(path, "must specify a volume type"));
        }
    }
}
