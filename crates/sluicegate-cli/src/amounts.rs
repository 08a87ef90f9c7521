//! Numbers as people read them.

use sluicegate_flow::prune::Amount;

/// So many steps.
pub(crate) fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

/// So many things and their bytes.
pub(crate) fn amount(amount: Amount) -> String {
    if amount.count == 0 { "-".to_owned() } else { format!("{} ({})", amount.count, bytes(amount.bytes)) }
}

/// Bytes in the largest unit of which there is at least one, with one decimal.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_largest_unit_that_fits() {
        for (number, said) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_600_000, "1.5 MiB"), (5 << 30, "5.0 GiB")]
        {
            assert_eq!(bytes(number), said);
        }
        assert_eq!(amount(Amount { count: 2, bytes: 2048 }), "2 (2.0 KiB)");
    }
}
