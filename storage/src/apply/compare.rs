//! One compare of a txn against one key, as etcd's `applyCompare` (contract b.4).

use crate::command::{Compare, compare::Result as Wanted, compare::Target};
use crate::types::KeyValue;
use std::cmp::Ordering;

/// Whether `compare` holds for `kv`; a missing key is the zero key, except that a value compare on it is always false.
pub fn holds(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let field = |of: fn(&KeyValue) -> i64| kv.map_or(0, of);
    let order = match &compare.target {
        Some(Target::Value(value)) => match kv {
            None => return false,
            Some(kv) => kv.value.cmp(value),
        },
        Some(Target::Version(wanted)) => field(|kv| kv.version).cmp(wanted),
        Some(Target::CreateRevision(wanted)) => field(|kv| kv.create_revision).cmp(wanted),
        Some(Target::ModRevision(wanted)) => field(|kv| kv.mod_revision).cmp(wanted),
        Some(Target::Lease(wanted)) => field(|kv| kv.lease).cmp(wanted),
        Some(Target::AlwaysEqual(_)) | None => Ordering::Equal,
    };
    match Wanted::try_from(compare.result) {
        Ok(Wanted::Equal) => order.is_eq(),
        Ok(Wanted::NotEqual) => order.is_ne(),
        Ok(Wanted::Greater) => order.is_gt(),
        Ok(Wanted::Less) => order.is_lt(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Wanted as Op;

    #[test]
    fn a_missing_key_is_zero_but_has_no_value() {
        let compare = |result: i32, target| Compare { result, target: Some(target), ..Compare::default() };
        assert!(holds(&compare(Wanted::Equal as i32, Target::Version(0)), None));
        assert!(holds(&compare(99, Target::Version(5)), None));
        for result in [Wanted::Equal as i32, Wanted::NotEqual as i32, 99] {
            assert!(!holds(&compare(result, Target::Value(bytes::Bytes::new())), None));
        }
        assert!(!holds(&compare(Wanted::NotEqual as i32, Target::AlwaysEqual(true)), None));
    }

    #[test]
    fn a_missing_key_is_all_zeros_but_has_no_value() {
        let compare = |result: i32, target| holds(&Compare { result, target: Some(target), ..Default::default() }, None);
        assert!(compare(Op::Equal as i32, Target::Version(0)));
        assert!(compare(Op::Less as i32, Target::CreateRevision(1)));
        assert!(!compare(Op::Equal as i32, Target::Value("".into())));
        assert!(!compare(Op::NotEqual as i32, Target::Value("x".into())));
        assert!(compare(9, Target::Version(7)), "an unknown operator is true");
        assert!(!compare(9, Target::Value("x".into())), "but not for the value of a missing key");
        assert!(compare(Op::Equal as i32, Target::AlwaysEqual(true)));
        assert!(!compare(Op::Greater as i32, Target::AlwaysEqual(true)));
    }

    #[test]
    fn a_key_is_compared_by_what_it_has() {
        let kv = KeyValue { version: 2, create_revision: 3, mod_revision: 5, lease: 7, value: "v".into(), ..Default::default() };
        let compare = |op: Op, target| holds(&Compare { result: op as i32, target: Some(target), ..Default::default() }, Some(&kv));
        assert!(compare(Op::Equal, Target::Version(2)));
        assert!(compare(Op::Greater, Target::CreateRevision(2)));
        assert!(compare(Op::Less, Target::ModRevision(6)));
        assert!(compare(Op::NotEqual, Target::Lease(8)));
        assert!(compare(Op::Greater, Target::Value("u".into())));
        assert!(!compare(Op::Equal, Target::Value("w".into())));
    }
}
