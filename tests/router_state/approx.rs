//! The approximate producer and the `estimate` token backend.

use forerun_policies::epp::EndpointInfo;
use forerun_policies::epp::prefix::approx::{
    ApproxConfig, ApproxProducer, BlockIndex, ExtentIndex, PrefixIndex,
};
use forerun_policies::epp::prefix::{PrefixProducer, Text, estimate};
use forerun_sim::prompt::Content;
use forerun_sim::request::Labels;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Compared, expect, list, whole};

/// Every step of every sequence, in both forms of the index: matches, totals, block sizes and sizes of the lists.
pub(super) fn sequences(recording: &Value) -> Compared {
    let mut compared = refusals(recording)?;
    for (number, case) in list(recording, "cases").iter().enumerate() {
        compared += sequence::<BlockIndex>(case).map_err(|e| format!("blocks, case {number}, {e}"))?;
        compared += sequence::<ExtentIndex>(case).map_err(|e| format!("extents, case {number}, {e}"))?;
    }
    Ok(compared)
}

fn config(params: &Value) -> Result<ApproxConfig, String> {
    ApproxConfig::deserialize(params).map_err(|e| e.to_string())
}

/// Parameters that are refused: values with the recorded reason, unknown fields for any.
fn refusals(recording: &Value) -> Compared {
    for refused in list(recording, "rejected_params") {
        let error = match config(&refused["params"]) {
            Ok(config) => config.check().err().map(|error| error.to_string()),
            Err(_) => refused["error"].as_str().map(str::to_owned),
        };
        expect(&error.as_deref(), &refused["error"].as_str(), || refused["params"].to_string())?;
    }
    Ok(list(recording, "rejected_params").len())
}

fn sequence<I: PrefixIndex>(case: &Value) -> Compared {
    let mut producer = ApproxProducer::<I>::new(config(&case["params"])?).map_err(|e| e.to_string())?;
    for endpoint in list(case, "endpoints") {
        producer.add_endpoint(&EndpointInfo {
            block_size: whole(endpoint, "block_size"),
            num_gpu_blocks: whole(endpoint, "num_blocks"),
            ..EndpointInfo::default()
        });
    }
    let mut roots = Labels::default();
    for (number, step) in list(case, "steps").iter().enumerate() {
        compare(&mut producer, &mut roots, step).map_err(|e| format!("step {number}: {e}"))?;
    }
    Ok(list(case, "steps").len())
}

fn compare<I: PrefixIndex>(
    producer: &mut ApproxProducer<I>,
    roots: &mut Labels,
    step: &Value,
) -> Result<(), String> {
    if let [endpoint, blocks] = list(step, "set_num_blocks") {
        producer
            .set_num_gpu_blocks(endpoint.as_u64().unwrap_or(0) as u32, blocks.as_u64().unwrap_or(0) as u32);
    }
    let root = format!("{}{}", step["model"].as_str().unwrap_or(""), step["salt"].as_str().unwrap_or(""));
    let root = u64::from(roots.intern(&root).0);
    let texts: Vec<Text> =
        list(step, "prompts").iter().map(|prompt| producer.cut(text(prompt, root, producer))).collect();

    let mut matches = vec![0; list(step, "match").len()];
    for text in &texts {
        matches.iter_mut().zip(producer.count(text)).for_each(|(sum, count)| *sum += count);
    }
    expect(&matches, &numbers(&step["match"]), || "matches".into())?;
    expect(&texts.iter().map(Text::blocks).sum(), &whole(step, "total"), || "total".into())?;
    expect(&producer.block_tokens(), &whole(step, "block_size"), || "block size".into())?;

    if step["no_prerequest"] != true {
        for key in ["pick", "prefill_pick"] {
            let target = step[key].as_u64();
            target
                .into_iter()
                .for_each(|target| texts.iter().for_each(|text| producer.insert(target as u32, text)));
        }
    }
    let size = |server: usize| producer.index().size(server as u32).map_or(-1, i64::from);
    let sizes: Vec<i64> = (0..list(step, "index").len()).map(size).collect();
    let recorded: Vec<i64> = list(step, "index").iter().filter_map(Value::as_i64).collect();
    expect(&sizes, &recorded, || "sizes of the lists".into())
}

/// A prompt as it is recorded: `[[segment, first offset, count], ...]`.
fn text<I: PrefixIndex>(prompt: &Value, root: u64, producer: &ApproxProducer<I>) -> Text {
    let mut text = producer.text(root);
    for piece in prompt.as_array().into_iter().flatten() {
        let [segment, offset, tokens] = numbers(piece)[..] else { continue };
        text.push(Content::shared(u64::from(segment)), offset, tokens);
    }
    text
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|number| number as u32).collect()
}

/// Every pseudo-token of the `estimate` backend.
pub(super) fn estimate_tokens(recording: &Value) -> Compared {
    for (number, case) in list(recording, "cases").iter().enumerate() {
        let recorded: Vec<Vec<u32>> = list(case, "tokens").iter().map(numbers).collect();
        expect(&estimated(case), &recorded, || format!("case {number}"))?;
    }
    Ok(list(recording, "cases").len())
}

fn estimated(case: &Value) -> Vec<Vec<u32>> {
    let of = |text: &Value| estimate::pseudo_tokens(text.as_str().unwrap_or("").as_bytes());
    let tokens = if !case["prompts"].is_null() {
        list(case, "prompts").iter().map(of).collect()
    } else if !case["token_ids"].is_null() {
        vec![numbers(&case["token_ids"])]
    } else if !case["messages"].is_null() {
        // A chat is its roles and contents, one behind the other.
        let words =
            list(case, "messages").iter().flat_map(|message| message.as_array().into_iter().flatten());
        let chat: String = words.filter_map(Value::as_str).collect();
        vec![estimate::pseudo_tokens(chat.as_bytes())]
    } else {
        vec![of(&case["prompt"])]
    };
    // A request without any token is a request without prompts.
    if tokens.iter().all(Vec::is_empty) { Vec::new() } else { tokens }
}
