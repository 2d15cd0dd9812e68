use super::*;
use proptest::prelude::*;

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn load(body: &str, options: LoadOptions) -> Result<Config, LoadError> {
    Config::load(&format!("{HEAD}{body}"), options)
}

fn error(body: &str) -> LoadError {
    load(body, LoadOptions::default()).expect_err("a refusal")
}

#[test]
fn without_a_file_queue_kv_cache_and_prefix_score() {
    let config = Config::load("", LoadOptions::default()).unwrap();
    let scorers = [("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0)];
    let scorers = scorers.map(|(name, weight)| (name.to_owned(), weight));
    assert_eq!(config.profiles[0].scorers, scorers);
    assert_eq!(config.profiles[0].picker, "max-score-picker");
    assert!(config.plugin("approx-prefix-cache-producer").is_some(), "created for the prefix scorer");
}

#[test]
fn errors_name_the_line_and_the_mend() {
    let unknown = error("plugins:\n- type: queue-scorer\n- type: queue-scoer\n");
    assert_eq!((unknown.stage, unknown.line), (Stage::Validation, Some(5)));
    assert!(unknown.reason.contains("did you mean 'queue-scorer'?"), "{unknown}");
    let field = error("plugins:\n- type: queue-scorer\n  weight: 2\n");
    assert_eq!((field.stage, field.line), (Stage::Decode, Some(5)));
    let parameter = error("plugins:\n- type: load-aware-scorer\n  parameters: {thresold: 3}\n");
    assert_eq!((parameter.stage, parameter.line), (Stage::Instantiation, Some(4)));
    assert!(!unknown.to_string().contains('\n'));
}

#[test]
fn a_lenient_reader_takes_older_and_newer_names() {
    let lenient = LoadOptions { upstream: Upstream::Lenient, ..LoadOptions::default() };
    let body = "plugins:\n- type: kv-cache-scorer\n- type: prefix-cache-scorer\n  parameters: {hashBlockSize: 128, \
                lruCapacityPerServer: 7}\n- type: prefix-cache-affinity-filter\n  parameters: \
                {maxTokensInFlightPenalty: 5}\n";
    assert!(load(body, LoadOptions::default()).is_err());
    let config = load(body, lenient).unwrap();
    assert_eq!(config.plugin("kv-cache-scorer").unwrap().kind, "kv-cache-utilization-scorer");
    let producer = config.plugin("approx-prefix-cache-producer").unwrap();
    let expected = serde_json::json!({"autoTune": false, "blockSizeTokens": 128, "lruCapacityPerServer": 7});
    assert_eq!(producer.parameters, expected);
    assert_eq!(config.warnings.len(), 4, "{:?}", config.warnings);
    let newer = "apiVersion: llm-d.ai/v1\nkind: EndpointPickerConfig\nplugins: [{type: queue-scorer}]\n";
    assert!(Config::load(newer, LoadOptions::default()).unwrap_err().reason.contains("no kind"));
    assert_eq!(Config::load(newer, lenient).unwrap().warnings.len(), 1);
}

#[test]
fn what_is_not_simulated_is_named_or_left_out_with_a_warning() {
    let body = "plugins: [{type: queue-scorer}, {type: mm-embeddings-cache-scorer}]\n";
    let refused = error(body);
    assert_eq!(refused.stage, Stage::Simulation);
    assert!(refused.reason.contains("mm-embeddings-cache-scorer"), "{refused}");
    let config = load(body, LoadOptions { allow_unsimulated: true, ..LoadOptions::default() }).unwrap();
    assert_eq!(config.profiles[0].scorers, [("queue-scorer".to_owned(), 1.0)]);
    assert!(config.warnings.iter().any(|warning| warning.contains("mm-embeddings-cache-scorer")));
}

#[test]
fn the_old_precise_scorer_is_a_producer_and_a_scorer() {
    let body = "plugins: [{type: precise-prefix-cache-scorer}]\n";
    let config = load(body, LoadOptions::default()).unwrap();
    let (scorer, _) = &config.profiles[0].scorers[0];
    let scorer = config.plugin(scorer).unwrap();
    assert_eq!(scorer.kind, "prefix-cache-scorer");
    assert_eq!(scorer.parameters["prefixMatchInfoProducerName"], "precise-prefix-cache-scorer");
}

#[test]
fn flow_control_is_read_with_its_limits() {
    let body = "featureGates: [flowControl]\nplugins: [{type: queue-scorer}, {type: concurrency-detector}]\n\
                flowControl:\n  maxBytes: 10Gi\n  defaultRequestTTL: 90s\n  saturationDetector: {pluginRef: \
                concurrency-detector}\n  priorityBands: [{priority: -1, maxRequests: \"1k\"}]\n";
    let flow = load(body, LoadOptions::default()).unwrap().flow_control;
    assert!(flow.enabled);
    assert_eq!((flow.max_bytes, flow.max_requests), (Some(10 << 30), None));
    assert_eq!(flow.bands[0].max_requests, Some(1000));
    assert_eq!(flow.bands[0].fairness_policy, "global-strict-fairness-policy");
    let missing = body.replace("pluginRef: concurrency-detector", "pluginRef: nothing");
    assert!(error(&missing).reason.contains("undefined plugin 'nothing'"));
}

#[test]
fn go_reads_a_whole_float_as_an_integer_and_a_null_as_absent() {
    let body = "plugins:\n- type: load-aware-scorer\n  parameters: {threshold: 4.0}\n";
    assert!(load(body, LoadOptions::default()).is_ok());
    assert!(load(&body.replace("4.0", "~"), LoadOptions::default()).is_ok());
    assert!(load(&body.replace("4.0", "4.5"), LoadOptions::default()).is_err());
}

proptest! {
    #[test]
    fn no_text_is_a_panic(cut in 0..400usize, noise in "\\PC{0,8}") {
        let text = format!("{HEAD}plugins:\n- type: prefix-cache-scorer\n  parameters: {{matchLengthWeight: 0.4}}\n\
                            schedulingProfiles:\n- name: a\n  plugins: [{{pluginRef: prefix-cache-scorer, weight: 2}}]\n");
        let cut = cut.min(text.len());
        let _ = Config::load(&format!("{}{noise}{}", &text[..cut], &text[cut..]), LoadOptions::default());
        let _ = Config::load(&text[..cut], LoadOptions::default());
    }
}
