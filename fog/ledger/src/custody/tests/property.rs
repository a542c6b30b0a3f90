//! Whatever members try, an item is in one pair of hands.

use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_item_has_one_holder(
        tries in proptest::collection::vec((0usize..2, 0usize..4, 0usize..4, 0u8..8), 1..40),
    ) {
        let names = ["a", "b", "c", "d"];
        let mut log = Consortium::new();
        // Two items: who holds each, by which entry, and the entry before it.
        let mut held: [Option<(usize, Digest, Digest)>; 2] = [None, None];
        for (number, giver, receiver, how) in tries {
            let item = opening("a", ["S-1", "S-2"][number]).item();
            let Some((holder, last, older)) = held[number] else {
                let issued = say(&mut log, &[names[giver]], item, issue()).unwrap();
                held[number] = Some((giver, issued, issued));
                continue;
            };
            // Now and then a holder who goes by an entry that is not the last.
            let previous = if how == 0 { older } else { last };
            let (from, next) = (names[giver], names[receiver]);
            let handed = say(&mut log, &[from, next], item, to(next, previous));
            let fits = giver == holder && receiver != giver && previous == last;
            prop_assert_eq!(handed.is_ok(), fits, "{:?}", handed);
            if let Ok(entry) = handed {
                held[number] = Some((receiver, entry, last));
            }
            let (holder, ..) = held[number].unwrap();
            let chain = log.state.item(&item).unwrap();
            prop_assert_eq!(chain.holder().unwrap().as_str(), names[holder]);
        }
    }
}
