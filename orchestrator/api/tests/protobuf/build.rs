//! Short ways to write messages.

use std::collections::BTreeMap;

use k8s_pb::api::core::v1 as core;
use k8s_pb::apimachinery::pkg::api::resource::Quantity;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::util::intstr::IntOrString;

/// A message with the given fields; every other is absent.
macro_rules! pb {
    ($($ty:ident)::+ { $($field:ident: $value:expr),* $(,)? }) => {
        $($ty)::+ { $($field: $value.into(),)* ..Default::default() }
    };
}

pub(crate) fn s(text: &str) -> String {
    text.to_owned()
}

pub(crate) fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|i| s(i)).collect()
}

pub(crate) fn map(key: &str, value: &str) -> BTreeMap<String, String> {
    [(s(key), s(value))].into()
}

pub(crate) fn quantity(text: &str) -> Quantity {
    pb!(Quantity { string: s(text) })
}

pub(crate) fn amount(name: &str, text: &str) -> BTreeMap<String, Quantity> {
    [(s(name), quantity(text))].into()
}

pub(crate) fn int(value: i32) -> IntOrString {
    pb!(IntOrString { r#type: 0i64, int_val: value, str_val: s("") })
}

pub(crate) fn text(value: &str) -> IntOrString {
    pb!(IntOrString { r#type: 1i64, int_val: 0, str_val: s(value) })
}

pub(crate) fn time(seconds: i64) -> meta::Time {
    pb!(meta::Time { seconds: seconds, nanos: 0 })
}

pub(crate) fn micro(seconds: i64, nanos: i32) -> meta::MicroTime {
    pb!(meta::MicroTime { seconds: seconds, nanos: nanos })
}

pub(crate) fn name(text: &str) -> core::LocalObjectReference {
    pb!(core::LocalObjectReference { name: s(text) })
}

pub(crate) fn named(text: &str) -> meta::ObjectMeta {
    pb!(meta::ObjectMeta { name: s(text) })
}

pub(crate) fn labels(key: &str, value: &str) -> meta::LabelSelector {
    pb!(meta::LabelSelector { match_labels: map(key, value) })
}

pub(crate) use pb;
