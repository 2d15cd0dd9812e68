use std::fs;

use tempfile::TempDir;

use super::*;

/// Tables of two GPUs whose products all take `launch + bytes` at a share of bandwidth, with one outlier.
fn tables(bandwidth_shares: [f64; 2]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for ((name, gpu), share) in FOLDERS.into_iter().zip(bandwidth_shares) {
        let gpu = catalog::gpu(gpu).unwrap();
        let mut text = String::from("gemm_dtype,m,n,k,latency_us\n");
        for n in [1024, 2048, 4096, 8192] {
            for k in [1024, 2048, 4096, 8192] {
                for m in [1, 8, 16, 32] {
                    let bytes = 2.0 * f64::from(m * n + m * k + n * k);
                    let us = 5.0 + bytes / (gpu.memory_bytes_per_s * share) * 1e6;
                    let outlier = if (n, k, m) == (2048, 2048, 8) { 30.0 } else { 1.0 };
                    text += &format!("bfloat16,{m},{n},{k},{}\n", us * outlier);
                }
            }
        }
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("gemm.csv"), text).unwrap();
    }
    folder
}

fn constant(fit: &Fit, name: &str) -> Constant {
    *fit.constants.iter().find(|constant| constant.name == name).unwrap()
}

#[test]
fn constants_are_recovered_in_spite_of_an_outlier_and_predict_another_gpu() {
    let folder = tables([0.8, 0.8]);
    let all = fit(folder.path()).unwrap();
    assert_eq!(all.len(), 2);
    for gpu in &all {
        let [fit] = gpu.fits.as_slice() else { panic!("one op was measured") };
        assert!((constant(fit, "bandwidth_efficiency").value - 0.8).abs() < 0.01, "{fit:?}");
        assert!((constant(fit, "launch_us").value - 5.0).abs() < 0.3, "{fit:?}");
        // One time in 64 is thirty times too long: 1.5 % of the mean error are its own.
        assert!(fit.held_out.mean_absolute < 0.03 && fit.transfer.unwrap().mean_absolute < 0.03, "{fit:?}");
    }
}

#[test]
fn an_efficiency_never_exceeds_the_peak_however_fast_the_table() {
    let folder = tables([6.6, 6.6]);
    for gpu in fit(folder.path()).unwrap() {
        let bandwidth = constant(&gpu.fits[0], "bandwidth_efficiency");
        assert!(bandwidth.value <= 1.0 && bandwidth.at_bound, "{bandwidth:?}");
        assert!(gpu.fits[0].in_sample.mean_absolute > 0.3, "what is impossible is not fitted");
    }
}

#[test]
fn a_folder_without_tables_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let why = fit(folder.path()).unwrap_err().to_string();
    assert!(why.contains("h100_sxm") && !why.contains('\n'), "{why}");
    fs::create_dir(folder.path().join("l40s")).unwrap();
    fs::write(folder.path().join("l40s/gemm.csv"), "gemm_dtype,m,n,k,latency_us\nbfloat16,1,2048,2048,x\n")
        .unwrap();
    let why = fit(folder.path()).unwrap_err().to_string();
    assert!(why.contains("line 2") && !why.contains('\n'), "{why}");
}
