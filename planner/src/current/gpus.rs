//! GPUs by the labels that clusters give their nodes.

use forerun_sim::catalog;

use super::object::Object;

/// Node labels that name a GPU.
const LABELS: [&str; 4] =
    ["nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "gpu.nvidia.com/model", "accelerator"];

/// Labels whose value is an instance type.
const INSTANCE_LABELS: [&str; 2] = ["node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type"];

/// GPUs of instance types, by their prefix: AWS EC2, Azure and Google Cloud list them on their pages of
/// accelerated instances.
const INSTANCES: [(&str, &str); 16] = [
    ("p4d.", "a100-sxm-40gb"),
    ("p4de.", "a100-sxm-80gb"),
    ("p5.", "h100-sxm"),
    ("p5e.", "h200-sxm"),
    ("p5en.", "h200-sxm"),
    ("p6-b200.", "b200-sxm"),
    ("g5.", "a10g"),
    ("g6.", "l4"),
    ("g6e.", "l40s"),
    ("Standard_ND96isr_H100", "h100-sxm"),
    ("Standard_ND96isr_H200", "h200-sxm"),
    ("g2-standard", "l4"),
    ("a3-highgpu", "h100-sxm"),
    ("a3-megagpu", "h100-sxm"),
    ("a3-ultragpu", "h200-sxm"),
    ("a4-highgpu", "b200-sxm"),
];

/// GPUs by a word of their product name. The A100 says its memory too.
const PRODUCTS: [(&str, &str); 7] = [
    ("b200", "b200-sxm"),
    ("h200", "h200-sxm"),
    ("h100", "h100-sxm"),
    ("l40s", "l40s"),
    ("l4", "l4"),
    ("a10g", "a10g"),
    ("mi300x", "mi300x"),
];

/// Values of the node label `nvidia.com/gpu.product`, as NVIDIA's GPU feature discovery writes them.
const PRODUCT_LABELS: [(&str, &str); 8] = [
    ("a100-sxm-40gb", "NVIDIA-A100-SXM4-40GB"),
    ("a100-sxm-80gb", "NVIDIA-A100-SXM4-80GB"),
    ("a10g", "NVIDIA-A10G"),
    ("b200-sxm", "NVIDIA-B200"),
    ("h100-sxm", "NVIDIA-H100-80GB-HBM3"),
    ("h200-sxm", "NVIDIA-H200"),
    ("l4", "NVIDIA-L4"),
    ("l40s", "NVIDIA-L40S"),
];

/// The value of the node label `nvidia.com/gpu.product` that selects a GPU of the catalog, where it is known.
pub(crate) fn product_of(gpu: &str) -> Option<&'static str> {
    PRODUCT_LABELS.iter().find(|(name, _)| *name == gpu).map(|(_, label)| *label)
}

/// What a pod says about its GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A GPU of the catalog.
    Known(&'static str),
    /// A name that the catalog does not have.
    Unknown(String),
    /// Nothing.
    Unsaid,
}

/// The GPU that the pod `spec` asks for by node selector or required node affinity.
pub(super) fn of_pod(spec: Object<'_>) -> Found {
    let selected = spec.entries("nodeSelector").filter_map(|(label, value)| Some((label, value.scalar()?)));
    let terms =
        spec.list("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let expressions = terms.flat_map(|term| term.list("matchExpressions"));
    let wanted = expressions.filter(|expression| expression.text("operator") == Some("In"));
    let wanted = wanted.filter_map(|expression| {
        Some((expression.text("key")?, expression.list("values").next()?.scalar()?))
    });
    let mut unknown = Found::Unsaid;
    for (label, value) in selected.chain(wanted) {
        let instance = INSTANCE_LABELS.contains(&label);
        if !instance && !LABELS.contains(&label) {
            continue;
        }
        match if instance { of_instance(&value) } else { of_product(&value) } {
            Some(name) => return Found::Known(name),
            None => unknown = Found::Unknown(value),
        }
    }
    unknown
}

fn of_instance(kind: &str) -> Option<&'static str> {
    INSTANCES.iter().find(|(prefix, _)| kind.starts_with(prefix)).map(|(_, name)| *name)
}

/// `NVIDIA-H100-80GB-HBM3` or `nvidia-h100-80gb`. PCIe and NVL cards are slower than the SXM modules of the
/// catalog, and so are partitions of a GPU: they are not taken for them.
fn of_product(product: &str) -> Option<&'static str> {
    let product = product.to_ascii_lowercase();
    if let Some(gpu) = catalog::gpu(product.strip_prefix("nvidia-").unwrap_or(&product)) {
        return Some(&gpu.name);
    }
    let words: Vec<&str> = product.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    if ["pcie", "nvl", "mig"].iter().any(|slower| product.contains(slower)) {
        return None;
    }
    let name = match words.contains(&"a100") {
        true if words.contains(&"80gb") => "a100-sxm-80gb",
        true if words.contains(&"40gb") => "a100-sxm-40gb",
        true => return None,
        false => PRODUCTS.into_iter().find(|(word, _)| words.contains(word))?.1,
    };
    catalog::gpu(name).map(|gpu| gpu.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_known_by_their_labels_and_slower_cards_are_not_taken_for_modules() {
        assert_eq!(of_product("NVIDIA-H100-80GB-HBM3"), Some("h100-sxm"));
        assert_eq!(of_product("nvidia-h100-80gb"), Some("h100-sxm"));
        assert_eq!(of_product("NVIDIA-A100-SXM4-80GB"), Some("a100-sxm-80gb"));
        assert_eq!(of_product("NVIDIA-A100-SXM4-40GB"), Some("a100-sxm-40gb"));
        assert_eq!(of_product("NVIDIA-H200"), Some("h200-sxm"));
        assert_eq!(of_product("NVIDIA-L40S"), Some("l40s"));
        for other in ["NVIDIA-H100-PCIe", "NVIDIA-H100-NVL", "NVIDIA-A100-PCIE-40GB", "Tesla-T4", "gh200"] {
            assert_eq!(of_product(other), None, "{other}");
        }
    }

    #[test]
    fn every_instance_type_has_a_gpu_of_the_catalog() {
        for (prefix, name) in INSTANCES.into_iter().chain(PRODUCTS) {
            assert!(catalog::gpu(name).is_some_and(|gpu| gpu.name == name), "{prefix}");
        }
        assert_eq!(of_instance("p5.48xlarge"), Some("h100-sxm"));
        assert_eq!(of_instance("p5en.48xlarge"), Some("h200-sxm"));
        assert_eq!(of_instance("m5.large"), None);
    }
}
