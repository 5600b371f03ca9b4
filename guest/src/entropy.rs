//! Random numbers for the guest: ChaCha20 seeded by the host, reseeded at every fork.

use crate::fork::{ForkArgs, Reset};
use serde::{Deserialize, Serialize};

/// A generator.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Entropy {
    key: [u32; 8],
    counter: u64,
}

impl Reset for Entropy {
    fn reset(&mut self, args: &ForkArgs) {
        self.reseed(&args.entropy);
    }
}

impl Entropy {
    /// Mixes 32 fresh bytes into the key.
    pub fn reseed(&mut self, seed: &[u8; 32]) {
        for (word, bytes) in self.key.iter_mut().zip(seed.chunks_exact(4)) {
            *word ^= bytes.try_into().map_or(0, u32::from_le_bytes);
        }
        // Key erasure: the old key cannot be found from the new one.
        let block = self.block();
        for (word, new) in self.key.iter_mut().zip(block) {
            *word = new;
        }
    }

    /// Fills the buffer and then forgets the key that made it.
    pub fn fill(&mut self, buf: &mut [u8]) {
        let next = self.block();
        for chunk in buf.chunks_mut(64) {
            let words = self.block();
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
        for (word, new) in self.key.iter_mut().zip(next) {
            *word = new;
        }
    }

    fn block(&mut self) -> [u32; 16] {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.key;
        self.counter = self.counter.wrapping_add(1);
        let (lo, hi) = (crate::num::low32(self.counter), crate::num::low32(self.counter >> 32));
        // "expand 32-byte k" (RFC 8439, section 2.3)
        let start = [
            0x6170_7865,
            0x3320_646e,
            0x7962_2d32,
            0x6b20_6574,
            k0,
            k1,
            k2,
            k3,
            k4,
            k5,
            k6,
            k7,
            lo,
            hi,
            0,
            0,
        ];
        let [
            mut a0,
            mut a1,
            mut a2,
            mut a3,
            mut b0,
            mut b1,
            mut b2,
            mut b3,
            mut c0,
            mut c1,
            mut c2,
            mut c3,
            mut d0,
            mut d1,
            mut d2,
            mut d3,
        ] = start;
        let quarter = |a: &mut u32, b: &mut u32, c: &mut u32, d: &mut u32| {
            *a = a.wrapping_add(*b);
            *d = (*d ^ *a).rotate_left(16);
            *c = c.wrapping_add(*d);
            *b = (*b ^ *c).rotate_left(12);
            *a = a.wrapping_add(*b);
            *d = (*d ^ *a).rotate_left(8);
            *c = c.wrapping_add(*d);
            *b = (*b ^ *c).rotate_left(7);
        };
        for _ in 0..10 {
            quarter(&mut a0, &mut b0, &mut c0, &mut d0);
            quarter(&mut a1, &mut b1, &mut c1, &mut d1);
            quarter(&mut a2, &mut b2, &mut c2, &mut d2);
            quarter(&mut a3, &mut b3, &mut c3, &mut d3);
            quarter(&mut a0, &mut b1, &mut c2, &mut d3);
            quarter(&mut a1, &mut b2, &mut c3, &mut d0);
            quarter(&mut a2, &mut b3, &mut c0, &mut d1);
            quarter(&mut a3, &mut b0, &mut c1, &mut d2);
        }
        let mut out = [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3];
        for (word, add) in out.iter_mut().zip(start) {
            *word = word.wrapping_add(add);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_children_of_one_seed_differ() {
        let mut seed = Entropy::default();
        seed.reseed(&[7; 32]);
        let (mut a, mut b) = (seed.clone(), seed.clone());
        a.reset(&ForkArgs { entropy: [1; 32], ..ForkArgs::default() });
        b.reset(&ForkArgs { entropy: [2; 32], ..ForkArgs::default() });
        let (mut x, mut y) = ([0; 32], [0; 32]);
        a.fill(&mut x);
        b.fill(&mut y);
        assert_ne!(x, y);
        let mut z = [0; 32];
        a.fill(&mut z);
        assert_ne!(x, z);
    }
}
