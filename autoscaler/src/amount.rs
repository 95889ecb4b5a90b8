//! Between the API's quantities and the whole numbers that decisions are made with.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use loadline_api::quantity::{Format, Quantity};

/// Thousandths, rounded up as Kubernetes does; none if the text is no quantity.
pub(crate) fn milli(quantity: &ApiQuantity) -> Option<i64> {
    Quantity::parse(&quantity.0).ok().map(|q| q.milli_value())
}

/// Billionths.
pub(crate) fn nanos(quantity: &ApiQuantity) -> Option<i128> {
    Quantity::parse(&quantity.0).ok().map(|q| q.nanos())
}

/// The canonical text of an amount of thousandths, as status fields show it.
pub(crate) fn quantity(milli: i64) -> ApiQuantity {
    ApiQuantity(Quantity::from_millis(milli).to_string())
}

/// The same for a resource: bytes keep their binary suffixes.
pub(crate) fn resource_quantity(resource: &str, milli: i64) -> ApiQuantity {
    let format = if resource == "memory" { Format::BinarySI } else { Format::DecimalSI };
    ApiQuantity(Quantity::from_nanos(i128::from(milli) * 1_000_000, format).to_string())
}

/// For people: cores with their unit, bytes in MiB.
pub(crate) fn words(resource: &str, milli: i64) -> String {
    match resource {
        "memory" => format!("{:.0}Mi", milli as f64 / 1000.0 / f64::from(1 << 20)),
        _ => quantity(milli).0,
    }
}
