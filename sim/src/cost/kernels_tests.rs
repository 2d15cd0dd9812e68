//! The forms, by themselves.

use super::*;
use crate::catalog::gpu;

#[test]
fn the_smooth_maximum_lies_between_maximum_and_sum() {
    for p in [1.0, 1.66, 4.0] {
        for (x, y) in [(0.0, 0.0), (1.0, 0.0), (1.0, 1e-9), (3.0, 4.0), (5.0, 5.0)] {
            let smooth = smooth_max(x, y, p);
            assert!(smooth >= f64::max(x, y) && smooth <= (x + y) * (1.0 + 1e-12), "{x} {y} {p}: {smooth}");
            assert_eq!(smooth.to_bits(), smooth_max(y, x, p).to_bits());
        }
    }
    assert!((smooth_max(3.0, 4.0, 2.0) - 5.0).abs() < 1e-12);
}

#[test]
fn one_token_touches_its_own_experts_and_many_touch_all() {
    assert!((experts_touched(128.0, 8.0, 1.0) - 8.0).abs() < 1e-9);
    assert!((experts_touched(128.0, 8.0, 2.0) - 15.5).abs() < 1e-9, "8 + 8 * (1 - 8/128)");
    assert!(experts_touched(128.0, 8.0, 1000.0) > 127.9);
    assert!((experts_touched(8.0, 8.0, 1.0) - 8.0).abs() < 1e-12);
}

#[test]
fn expert_products_take_what_was_measured() {
    // LLMServingSim 2.0's profile of Qwen3-30B-A3B on an RTX PRO 6000, one layer, us: (tokens, experts touched).
    let gpu = gpu("rtx-pro-6000").unwrap();
    for (tokens, touched, measured_us) in [
        (1.0, 8.0, 50.2),
        (16.0, 64.0, 424.1),
        (128.0, 128.0, 849.3),
        (512.0, 128.0, 912.0),
        (2048.0, 128.0, 1066.6),
    ] {
        let product =
            |k, n| Product { tokens: tokens * 8.0, k, n, matrices: touched, weights: WeightType::Bf16 };
        let us = gemm_us(gpu, &product(2048.0, 1536.0)) + gemm_us(gpu, &product(768.0, 2048.0));
        assert!((us / measured_us - 1.0).abs() < 0.30, "{tokens} tokens: {us:.1} us, measured {measured_us}");
    }
}

#[test]
fn a_gemm_takes_what_was_measured() {
    // AIConfigurator's tables, bf16, us: (GPU, tokens, n, k).
    for (name, tokens, n, k, measured_us) in [
        ("h100", 1.0, 4096.0, 4096.0, 15.0),
        ("h100", 256.0, 6144.0, 4096.0, 26.4),
        ("h100", 1024.0, 10_240.0, 5120.0, 137.0),
        ("h100", 4096.0, 8192.0, 8192.0, 697.7),
        ("h100", 8192.0, 7168.0, 5120.0, 744.7),
    ] {
        let product = Product { tokens, k, n, matrices: 1.0, weights: WeightType::Bf16 };
        let us = gemm_us(gpu(name).unwrap(), &product);
        assert!(
            (us / measured_us - 1.0).abs() < 0.2,
            "{name} {tokens}x{n}x{k}: {us:.1} us, measured {measured_us}"
        );
    }
}
