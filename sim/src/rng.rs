//! Random streams: one named stream per purpose, from a portable generator.
//!
//! A run is a pure function of (scenario, seed). Each purpose ("arrivals", "lengths", "router", ...) draws
//! from a stream of its own, so that a change of policy never moves the arrivals: common random numbers.
//! The generator is ChaCha8: the same numbers on every machine. Transcendental functions come from `libm`,
//! because the standard library's differ between platforms.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};

/// One stream of random numbers, named by its purpose.
#[derive(Clone, Debug)]
pub struct Stream {
    rng: ChaCha8Rng,
    purpose: u64,
}

impl Stream {
    /// The stream `purpose` of run `seed`. Streams of different purposes are independent.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let purpose = fnv1a(purpose.as_bytes());
        rng.set_stream(purpose);
        Self { rng, purpose }
    }

    /// Goes to place `place` of line `line`: the next numbers are those of this place and of those after it, whatever was
    /// drawn before. For numbers that belong to things instead of following one another.
    pub fn seek(&mut self, line: u64, place: u64) {
        // Lines are numbered in ways of their own: an odd factor keeps them apart and mixes them with the purpose.
        self.rng.set_stream(self.purpose ^ line.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        self.rng.set_word_pos(2 * u128::from(place));
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in [0, 1), on the grid of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in (0, 1): safe under a logarithm.
    pub fn uniform_open(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64)
    }

    /// Uniform in `0..bound` (Lemire's multiplication; the bias is below `bound` / 2^64).
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "no choice among nothing");
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -libm::log(self.uniform_open())
    }

    /// Standard normal (Box-Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(self.uniform_open()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Gamma with the given shape (> 0) and scale 1 (Marsaglia and Tsang 2000).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            // Gamma(a) = Gamma(a + 1) * U^(1/a)
            let boost = libm::pow(self.uniform_open(), 1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let x = self.normal();
            let v = 1.0 + c * x;
            if v <= 0.0 {
                continue;
            }
            let v = v * v * v;
            let u = self.uniform_open();
            if libm::log(u) < 0.5 * x * x + d - d * v + d * libm::log(v) {
                return d * v;
            }
        }
    }
}

/// FNV-1a: a stable name -> number map for stream names.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_purpose_give_the_same_numbers() {
        let draw = |seed, purpose| {
            let mut stream = Stream::new(seed, purpose);
            (0..4).map(|_| stream.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, "arrivals"), draw(1, "arrivals"));
        assert_ne!(draw(1, "arrivals"), draw(1, "lengths"));
        assert_ne!(draw(1, "arrivals"), draw(2, "arrivals"));
    }

    #[test]
    fn a_place_has_its_number_whatever_was_drawn_before() {
        let mut stream = Stream::new(1, "places");
        stream.seek(5, 7);
        let [first, second] = [stream.bits(), stream.bits()];
        stream.seek(6, 7);
        assert_ne!(stream.bits(), first);
        stream.seek(5, 8);
        assert_eq!(stream.bits(), second);
    }

    #[test]
    fn moments_agree_with_theory() {
        let mut stream = Stream::new(7, "moments");
        let n = 200_000;
        let mut check = |name: &str, mean: f64, sd: f64, draw: &mut dyn FnMut(&mut Stream) -> f64| {
            let sample = (0..n).map(|_| draw(&mut stream)).sum::<f64>() / f64::from(n);
            let bound = 5.0 * sd / f64::from(n).sqrt();
            assert!((sample - mean).abs() < bound, "{name}: mean {sample}, expected {mean} +- {bound}");
        };
        check("uniform", 0.5, 0.289, &mut Stream::uniform);
        check("exponential", 1.0, 1.0, &mut Stream::exponential);
        check("normal", 0.0, 1.0, &mut Stream::normal);
        check("gamma 0.5", 0.5, 0.5f64.sqrt(), &mut |s| s.gamma(0.5));
        check("gamma 3", 3.0, 3f64.sqrt(), &mut |s| s.gamma(3.0));
    }
}
