/// Numbers that look random and are the same in each run: splitmix64.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// Each seed has its own numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// From `first` to `last`, both included.
    pub fn between(&mut self, first: i64, last: i64) -> i64 {
        let span = u64::try_from(last - first).unwrap_or(0) + 1;
        first + i64::try_from(self.below(span)).unwrap_or(0)
    }

    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(list.len() as u64)).unwrap_or(0);
        list.get(index).copied()
    }

    /// Takes one out of a list.
    pub fn take<T>(&mut self, list: &mut Vec<T>) -> Option<T> {
        let index = usize::try_from(self.below(list.len() as u64)).unwrap_or(0);
        (index < list.len()).then(|| list.swap_remove(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_range_comes_and_no_other() {
        let mut chance = Chance::new(3);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[usize::try_from(chance.between(-2, 2) + 2).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
        assert_eq!(chance.pick::<u8>(&[]), None);
        assert_eq!(chance.take::<u8>(&mut vec![]), None);
        assert_eq!(chance.take(&mut vec![9]), Some(9));
    }
}
