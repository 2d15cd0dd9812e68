//! vLLM's command line: what it says about the engine, and what of it is not modelled.

use crate::error::InputError;
use crate::scenario::{Dtype, EngineArgs, KvCacheDtype, SchedulingPolicy};

/// What the arguments say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Understood {
    pub(super) model: Option<String>,
    /// Where the model is, when a path or a variable stands for its name.
    pub(super) model_place: Option<String>,
    pub(super) dtype: Option<Dtype>,
    pub(super) kv_cache_dtype: Option<KvCacheDtype>,
    pub(super) engine: EngineArgs,
    pub(super) tensor_parallel: u32,
    pub(super) pipeline_parallel: u32,
    pub(super) data_parallel: u32,
    pub(super) notes: Vec<String>,
}

/// Arguments that decide nothing that is simulated: where the server listens, what it logs, how it parses.
const WITHOUT_EFFECT: [&str; 44] = [
    "host",
    "port",
    "uds",
    "api-key",
    "served-model-name",
    "uvicorn-log-level",
    "disable-log-requests",
    "disable-log-stats",
    "enable-log-requests",
    "disable-access-log-for-endpoints",
    "disable-uvicorn-access-log",
    "trust-remote-code",
    "download-dir",
    "load-format",
    "tokenizer",
    "tokenizer-mode",
    "hf-token",
    "hf-config-path",
    "chat-template",
    "chat-template-content-format",
    "response-role",
    "enable-auto-tool-choice",
    "tool-call-parser",
    "tool-parser-plugin",
    "reasoning-parser",
    "enable-reasoning",
    "seed",
    "revision",
    "tokenizer-revision",
    "root-path",
    "ssl-keyfile",
    "ssl-certfile",
    "ssl-ca-certs",
    "allowed-origins",
    "otlp-traces-endpoint",
    "kv-events-config",
    "shutdown-timeout",
    "model-name",
    "generation-config",
    "distributed-executor-backend",
    "prefix-caching-hash-algo",
    "max-log-len",
    "return-tokens-as-token-ids",
    "enable-lora",
];

/// Arguments without a value, besides `--no-...`.
const SWITCHES: [&str; 19] = [
    "enable-prefix-caching",
    "enable-chunked-prefill",
    "async-scheduling",
    "enforce-eager",
    "trust-remote-code",
    "disable-log-requests",
    "disable-log-stats",
    "enable-log-requests",
    "disable-uvicorn-access-log",
    "enable-auto-tool-choice",
    "enable-reasoning",
    "enable-lora",
    "enable-expert-parallel",
    "return-tokens-as-token-ids",
    "headless",
    "enable-sleep-mode",
    "enable-eplb",
    "long-prefill-token-threshold-adaptive",
    "scheduler-reserve-full-isl",
];

/// Arguments that change what is served, and that are not modelled: what each would change.
const NOT_MODELLED: [(&str, &str); 12] = [
    ("kv-transfer-config", "KV transfer or offloading"),
    ("kv-offloading-backend", "KV offloading"),
    ("kv-offloading-size", "KV offloading"),
    ("speculative-config", "speculative decoding"),
    ("enable-expert-parallel", "expert parallelism"),
    ("enforce-eager", "running without CUDA graphs: real decode steps are slower"),
    ("max-cpu-loras", "adapters kept in CPU memory"),
    ("max-lora-rank", "the cost of adapters"),
    ("lora-modules", "the cost of adapters"),
    ("config", "arguments in a file of the container"),
    ("swap-space", "swapping"),
    ("cpu-offload-gb", "weights in CPU memory"),
];

/// Understands the words of a vLLM command line.
///
/// # Errors
/// When an argument that matters has a malformed value.
pub(super) fn understand(words: &[String]) -> Result<Understood, InputError> {
    let mut understood = Understood {
        model: None,
        model_place: None,
        dtype: None,
        kv_cache_dtype: None,
        engine: EngineArgs::default(),
        tensor_parallel: 1,
        pipeline_parallel: 1,
        data_parallel: 1,
        notes: Vec::new(),
    };
    let mut words = words.iter().map(String::as_str).peekable();
    let mut after_serve = false;
    while let Some(word) = words.next() {
        let Some(flag) = flag_name(word) else {
            // The model is what follows `vllm serve`; in images that end so, it is the first argument.
            let program = word.rsplit('/').next().unwrap_or(word);
            let program = ["vllm", "python", "python3", "sh", "bash", "env", "exec"].contains(&program);
            let unnamed = understood.model.is_none() && understood.model_place.is_none();
            if after_serve || (unnamed && word.contains('/') && !program) {
                understood.set_model(word);
            }
            after_serve = word == "serve";
            continue;
        };
        after_serve = false;
        if flag.name == "m" {
            // `python -m vllm.entrypoints.openai.api_server`.
            words.next();
            continue;
        }
        let switch = flag.name.starts_with("no-") || SWITCHES.contains(&flag.name.as_str());
        let value = match flag.value {
            Some(value) => Some(value),
            None if switch => None,
            None => words.next_if(|next| flag_name(next).is_none()),
        };
        understood.set(&flag.name, value)?;
        while flag.name == "lora-modules" && words.next_if(|next| flag_name(next).is_none()).is_some() {}
    }
    understood.notes.sort();
    understood.notes.dedup();
    Ok(understood)
}

struct Flag<'a> {
    name: String,
    value: Option<&'a str>,
}

/// `--max-num-seqs=64`, `--max_num_seqs`, `-tp`: the name with hyphens, and the value after `=`.
fn flag_name(word: &str) -> Option<Flag<'_>> {
    let negative = word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !word.starts_with('-') || negative || word == "-" {
        return None;
    }
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let name = name.trim_start_matches('-').replace('_', "-");
    let long = match name.as_str() {
        "tp" => "tensor-parallel-size",
        "pp" => "pipeline-parallel-size",
        "dp" => "data-parallel-size",
        "q" => "quantization",
        "sc" => "speculative-config",
        _ => return Some(Flag { name, value }),
    };
    Some(Flag { name: long.to_owned(), value })
}

impl Understood {
    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), InputError> {
        let given = || value.ok_or_else(|| InputError::new(format!("`--{name}` has no value")));
        let number = || whole(name, given()?);
        let engine = &mut self.engine;
        match name {
            "model" | "model-id" => self.set_model(given()?),
            "tensor-parallel-size" => self.tensor_parallel = positive(name, number()?)?,
            "pipeline-parallel-size" => self.pipeline_parallel = positive(name, number()?)?,
            "data-parallel-size" => self.data_parallel = positive(name, number()?)?,
            "max-model-len" if matches!(value, Some("auto" | "-1")) => {}
            "max-model-len" => engine.max_model_len = Some(number()?),
            "max-num-batched-tokens" => engine.max_num_batched_tokens = Some(number()?),
            "max-num-seqs" => engine.max_num_seqs = Some(number()?),
            "block-size" => engine.block_size = Some(number()?),
            "num-gpu-blocks-override" => engine.num_gpu_blocks = Some(number()?),
            "long-prefill-token-threshold" => engine.long_prefill_token_threshold = Some(number()?),
            "max-loras" => engine.max_loras = Some(number()?),
            "max-num-active-seqs" => engine.max_num_active_seqs = Some(number()?),
            "max-num-queued-reqs" => engine.max_num_queued_reqs = Some(number()?),
            "watermark" => engine.watermark = Some(share(name, given()?)?),
            "long-prefill-token-threshold-adaptive" => {
                engine.long_prefill_token_threshold_adaptive = Some(true);
            }
            "scheduler-reserve-full-isl" => engine.scheduler_reserve_full_isl = Some(true),
            "no-scheduler-reserve-full-isl" => engine.scheduler_reserve_full_isl = Some(false),
            "gpu-memory-utilization" => engine.gpu_memory_utilization = Some(share(name, given()?)?),
            "enable-prefix-caching" => engine.enable_prefix_caching = Some(true),
            "no-enable-prefix-caching" => engine.enable_prefix_caching = Some(false),
            "enable-chunked-prefill" => engine.enable_chunked_prefill = Some(truth(name, value)?),
            "no-enable-chunked-prefill" => engine.enable_chunked_prefill = Some(false),
            "async-scheduling" => engine.async_scheduling = Some(true),
            "no-async-scheduling" => engine.async_scheduling = Some(false),
            "scheduling-policy" => {
                engine.scheduling_policy = Some(match given()? {
                    "fcfs" => SchedulingPolicy::Fcfs,
                    "priority" => SchedulingPolicy::Priority,
                    other => return Err(wrong(name, other, "`fcfs` or `priority`")),
                });
            }
            "dtype" => self.set_dtype(given()?),
            "quantization" => self.set_quantization(given()?),
            "kv-cache-dtype" => self.set_kv_cache_dtype(given()?),
            _ => self.note(name),
        }
        Ok(())
    }

    fn note(&mut self, name: &str) {
        if let Some((_, what)) = NOT_MODELLED.iter().find(|(known, _)| *known == name) {
            self.notes.push(format!("`--{name}` is not modelled ({what}): left out"));
        } else if !WITHOUT_EFFECT.contains(&name) {
            self.notes.push(format!("`--{name}` was not understood: left out"));
        }
    }

    /// A name of Hugging Face; a path or a variable says nothing.
    fn set_model(&mut self, name: &str) {
        if name.starts_with(['/', '.', '$', '{']) || name.contains("://") || name.contains('$') {
            self.model_place = Some(name.to_owned());
        } else {
            self.model = Some(name.to_owned());
        }
    }

    fn set_dtype(&mut self, dtype: &str) {
        match dtype {
            "auto" => {}
            "bfloat16" => self.dtype = Some(Dtype::Bf16),
            "float16" | "half" => self.dtype = Some(Dtype::Fp16),
            other => self.notes.push(format!("`--dtype {other}` is not modelled: the model's own is taken")),
        }
    }

    /// Both 8-bit formats take the same memory.
    fn set_kv_cache_dtype(&mut self, dtype: &str) {
        match dtype {
            "auto" | "bfloat16" => {}
            "fp8" | "fp8_e4m3" | "fp8_e5m2" => self.kv_cache_dtype = Some(KvCacheDtype::Fp8),
            other => {
                self.notes.push(format!("`--kv-cache-dtype {other}` is not modelled: 16 bits are taken"));
            }
        }
    }

    fn set_quantization(&mut self, method: &str) {
        match method {
            "fp8" => self.dtype = Some(Dtype::Fp8),
            "mxfp4" => self.dtype = Some(Dtype::Mxfp4),
            "awq" | "awq_marlin" | "gptq" | "gptq_marlin" => self.dtype = Some(Dtype::W4a16),
            other => {
                self.notes
                    .push(format!("`--quantization {other}` was not understood: bf16 weights are taken"));
            }
        }
    }
}

fn wrong(name: &str, value: &str, expected: &str) -> InputError {
    InputError::new(format!("`--{name} {value}`: {expected} is expected"))
}

/// A whole number as vLLM reads it: `8192`, `8k` (8000), `8K` (8192), `1.5k`, up to `G`
/// (`human_readable_int` in vllm/engine/arg_utils.py: fractions only of decimal units).
fn whole(name: &str, text: &str) -> Result<u32, InputError> {
    let refused = || wrong(name, text, "a whole number, such as 8192, 8k or 8K,");
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, suffix)) if suffix.is_ascii_alphabetic() => (&text[..at], Some(suffix)),
        _ => (text, None),
    };
    let unit: u64 = match unit {
        None => return text.parse().map_err(|_| refused()),
        Some('k') => 1000,
        Some('m') => 1_000_000,
        Some('g') => 1_000_000_000,
        Some('K') => 1 << 10,
        Some('M') => 1 << 20,
        Some('G') => 1 << 30,
        Some(_) => return Err(refused()),
    };
    let number: f64 = digits.parse().map_err(|_| refused())?;
    let scaled = number * unit as f64;
    let binary = unit.is_power_of_two();
    if !(0.0..=f64::from(u32::MAX)).contains(&scaled) || (binary && number.fract() != 0.0) {
        return Err(refused());
    }
    Ok(scaled as u32)
}

fn positive(name: &str, number: u32) -> Result<u32, InputError> {
    match number {
        1..=1024 => Ok(number),
        _ => Err(wrong(name, &number.to_string(), "a number of GPUs from 1 to 1024")),
    }
}

fn share(name: &str, text: &str) -> Result<f64, InputError> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| wrong(name, text, "a number between 0 and 1"))
}

fn truth(name: &str, text: Option<&str>) -> Result<bool, InputError> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(wrong(name, other, "true or false")),
    }
}
