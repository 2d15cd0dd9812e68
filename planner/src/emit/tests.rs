//! What is emitted against golden files; `FORERUN_BLESS=1` writes them anew.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::verdict::{Autoscaling, Backend, IMAGE, Lora, Prediction, RouterVerdict, Servers, Tiers};
use super::*;
use crate::current;
use crate::scenario::{EngineArgs, KvCacheDtype, Role};

const CONFIG: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: queue-scorer
  - type: prefix-cache-scorer
    parameters: {matchLengthWeight: 0.25} # \"quoted\"
schedulingProfiles:
  - name: default
    plugins:
      - {pluginRef: queue-scorer, weight: 2}
      - {pluginRef: prefix-cache-scorer, weight: 3}
";

fn servers(tensor_parallel: u32, replicas: u32) -> Servers {
    Servers {
        gpu: "h100-sxm".to_owned(),
        gpu_product: Some("NVIDIA-H100-80GB-HBM3".to_owned()),
        tensor_parallel,
        replicas,
        engine: EngineArgs {
            max_model_len: Some(32_768),
            gpu_memory_utilization: Some(0.9),
            enable_prefix_caching: Some(true),
            ..EngineArgs::default()
        },
    }
}

fn prediction(name: &str, value: &str) -> Prediction {
    Prediction { name: name.to_owned(), value: value.to_owned() }
}

/// Prefix-aware routing over aggregated replicas that scale to zero, beside what serves today.
fn aggregated() -> Verdict {
    Verdict {
        name: "chat".to_owned(),
        namespace: "llm".to_owned(),
        scenario: "chat.yaml".to_owned(),
        predicted: vec![
            prediction("TTFT p95", "412 ms (398 to 431)"),
            prediction("SLO attainment", "97.1 %"),
        ],
        hazards: vec!["the endpoint picker holds requests for 60 s, a cold start takes 278 s".to_owned()],
        model: "Qwen/Qwen3-14B".to_owned(),
        weights_gib: Some(27.5),
        kv_cache_dtype: None,
        image: IMAGE.to_owned(),
        serving: Serving::Aggregated(servers(1, 4)),
        simulated: None,
        router: Some(RouterVerdict { config: CONFIG.to_owned(), kv_events: false, llmd_min: None }),
        tiers: Tiers { cpu_gib: Some(100.0), files: false },
        lora: Some(Lora { max_loras: 4, max_cpu_loras: 16, rank: 16 }),
        autoscaling: Some(Autoscaling {
            min_replicas: 0,
            max_replicas: 8,
            cooldown_s: 600,
            cold_start_s: 277.8,
            running_per_replica: 16,
        }),
        today: Some(Backend {
            name: "chat-old".to_owned(),
            inference_pool: false,
            url: "http://chat-old.llm.svc.cluster.local/v1".to_owned(),
            weight: 70,
        }),
        openshift: true,
    }
}

/// Prefill and decode apart, routed by KV events.
fn disaggregated() -> Verdict {
    Verdict {
        serving: Serving::Disaggregated { prefill: servers(1, 6), decode: servers(4, 2) },
        router: Some(RouterVerdict {
            config: CONFIG.to_owned(),
            kv_events: true,
            llmd_min: Some("0.5".to_owned()),
        }),
        tiers: Tiers::default(),
        lora: None,
        kv_cache_dtype: Some(KvCacheDtype::Fp8),
        today: None,
        hazards: Vec::new(),
        autoscaling: Some(Autoscaling {
            min_replicas: 2,
            max_replicas: 16,
            cooldown_s: 300,
            cold_start_s: 277.8,
            running_per_replica: 16,
        }),
        ..aggregated()
    }
}

/// One vLLM, no router.
fn single() -> Verdict {
    Verdict {
        serving: Serving::Aggregated(servers(2, 1)),
        router: None,
        autoscaling: None,
        tiers: Tiers::default(),
        lora: None,
        today: None,
        hazards: Vec::new(),
        openshift: false,
        ..aggregated()
    }
}

fn golden(name: &str, verdict: &Verdict) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/emitted")).join(name);
    if std::env::var_os("FORERUN_BLESS").is_some() {
        write(verdict, &folder).unwrap();
    }
    let files = files(verdict).unwrap();
    let mut known: Vec<String> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    known.sort();
    assert_eq!(files.iter().map(|file| file.name).collect::<Vec<_>>(), known);
    for Emitted { name, text } in files {
        let known = std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(text, known, "{name}");
    }
}

#[test]
fn the_files_of_three_verdicts_are_the_golden_ones() {
    golden("aggregated", &aggregated());
    golden("disaggregated", &disaggregated());
    golden("single", &single());
}

/// The documents of an emitted file, read back.
fn read_back<T: DeserializeOwned>(verdict: &Verdict, name: &str) -> Vec<T> {
    let file = files(verdict).unwrap().into_iter().find(|file| file.name == name).expect(name);
    serde_saphyr::from_multiple(&file.text).unwrap_or_else(|e| panic!("{name}: {e}\n{}", file.text))
}

#[test]
fn every_file_reads_back_as_what_was_meant() {
    for verdict in [aggregated(), disaggregated()] {
        assert_eq!(
            read_back::<values::ModelService>(&verdict, "modelservice-values.yaml"),
            [values::ModelService::of(&verdict)]
        );
        assert_eq!(
            read_back::<objects::InferencePool>(&verdict, "inferencepool.yaml"),
            [objects::InferencePool::of(&verdict)]
        );
        assert_eq!(
            read_back::<objects::HttpRoute>(&verdict, "httproute.yaml"),
            [objects::HttpRoute::of(&verdict)]
        );
        assert_eq!(read_back::<ogx::Ogx>(&verdict, "ogx-run-config.yaml"), [ogx::Ogx::of(&verdict)]);
        let router = verdict.router.as_ref().unwrap();
        assert_eq!(
            read_back::<values::RouterValues>(&verdict, "router-values.yaml"),
            [values::RouterValues::of(&verdict, router)]
        );
        let roles = verdict.serving.roles().count();
        assert_eq!(
            read_back::<objects::EmptyDirPatch>(&verdict, "openshift-emptydirs-patch.yaml").len(),
            roles
        );
        let scaled = read_back::<scaled_object::ScaledObject>(&verdict, "scaledobject.yaml");
        let most: u32 = scaled.iter().map(|scaled| scaled.spec.max_replica_count).sum();
        assert_eq!(most, verdict.autoscaling.as_ref().unwrap().max_replicas);
    }
}

#[test]
fn the_endpoint_pickers_configuration_is_passed_on_to_the_byte() {
    let [values]: [serde_json::Value; 1] =
        read_back(&aggregated(), "router-values.yaml").try_into().expect("one document");
    assert_eq!(values["router"]["epp"]["pluginsCustomConfig"]["forerun.yaml"], CONFIG);
    let file = files(&aggregated()).unwrap().into_iter().find(|file| file.name == "epp-config.yaml").unwrap();
    assert!(file.text.ends_with(CONFIG) && file.text.starts_with("# "));
}

#[test]
fn every_file_names_the_scenario_and_the_predicted_figures() {
    for Emitted { name, text } in files(&aggregated()).unwrap() {
        for part in
            ["scenario chat.yaml", "TTFT p95: 412 ms", "SLO attainment: 97.1 %", "cold start takes 278 s"]
        {
            assert!(text.contains(part), "{part:?} is not in {name}");
        }
    }
}

#[test]
fn the_weights_of_the_route_are_shares_of_the_traffic() {
    let route = objects::HttpRoute::of(&aggregated());
    let weights: Vec<_> = route.spec.rules[0]
        .backend_refs
        .iter()
        .map(|backend| (backend.kind.as_str(), backend.weight))
        .collect();
    assert_eq!(weights, [("InferencePool", 30), ("Service", 70)]);
    let alone = objects::HttpRoute::of(&disaggregated());
    assert_eq!(alone.spec.rules[0].backend_refs[0].weight, 100);
    assert_eq!(route.spec.rules[0].timeouts.request, "578s", "a request may wait for a cold start");
}

#[test]
fn files_below_host_memory_are_vllms_second_tier() {
    let with = |files: bool| {
        let verdict = Verdict { tiers: Tiers { cpu_gib: Some(2.0), files }, ..aggregated() };
        arguments::of(&verdict, Role::Both, &servers(1, 1), false)
    };
    assert!(with(false).contains(&"--kv-offloading-size=2".to_owned()));
    let own = with(true);
    let config = own.iter().find_map(|argument| argument.strip_prefix("--kv-transfer-config=")).unwrap();
    let config: serde_json::Value = serde_json::from_str(config).unwrap();
    let extra = &config["kv_connector_extra_config"];
    assert_eq!(
        (&config["kv_connector"], &extra["cpu_bytes_to_use"]),
        (&"OffloadingConnector".into(), &(2u64 << 30).into())
    );
    assert_eq!(
        (&extra["spec_name"], &extra["secondary_tiers"][0]["type"]),
        (&"TieringOffloadingSpec".into(), &"fs".into())
    );
    assert!(own.iter().all(|argument| !argument.contains("kv-offloading")), "one way, not both: {own:?}");
}

#[test]
fn emitted_arguments_are_understood_when_they_are_read_as_todays_fleet() {
    let verdict = disaggregated();
    let [values] =
        <[values::ModelService; 1]>::try_from(read_back(&verdict, "modelservice-values.yaml")).unwrap();
    let args = serde_json::to_string(&values.decode.containers[0].args).unwrap();
    let manifest = format!(
        "kind: Deployment\nmetadata: {{name: d}}\nspec: {{template: {{spec: {{containers: [{{image: vllm, args: {args}}}]}}}}}}\n"
    );
    let current = current::parse(&manifest).unwrap();
    assert_eq!(current.pools[0].engine, Some(servers(4, 2).engine));
    assert_eq!(current.kv_cache_dtype, Some(KvCacheDtype::Fp8));
}

#[test]
fn impossible_verdicts_are_refused() {
    let refused = |verdict: Verdict, part: &str| {
        let error = files(&verdict).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(Verdict { name: "Chat_1".to_owned(), ..aggregated() }, "DNS label");
    refused(Verdict { model: "a b".to_owned(), ..aggregated() }, "not a name");
    refused(Verdict { serving: Serving::Aggregated(servers(1, 0)), ..aggregated() }, "at least 1");
    refused(Verdict { router: None, autoscaling: None, ..disaggregated() }, "need a router");
    refused(
        Verdict { tiers: Tiers { cpu_gib: Some(9.0), files: false }, ..disaggregated() },
        "two KV connectors",
    );
    refused(Verdict { autoscaling: aggregated().autoscaling, ..single() }, "there is no router");
}

#[test]
fn what_a_user_wrote_cannot_leave_its_comment() {
    let verdict = Verdict { scenario: "a\nkind: Secret".to_owned(), ..single() };
    for Emitted { text, .. } in files(&verdict).unwrap() {
        assert!(!text.contains("\nkind: Secret"), "{text}");
    }
}

#[test]
fn files_are_written_into_a_folder_that_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write(&single(), &folder.path().join("new/deploy")).unwrap();
    assert_eq!(paths.len(), 2);
    assert!(paths.iter().all(|path| path.is_file()));
}
