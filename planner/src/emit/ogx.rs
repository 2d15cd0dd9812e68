//! OGX's run configuration: the part that names backends and models, in the shape of its published sample.

use serde::{Deserialize, Serialize};

use super::objects::GATEWAY;
use super::verdict::{Backend, Verdict};

/// The part of OGX's run configuration that names backends and models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ogx {
    /// Version of the format.
    pub version: u32,
    /// APIs that are served.
    pub apis: Vec<String>,
    /// Backends.
    pub providers: Providers,
    /// Models and where they are served.
    pub registered_resources: Registered,
}

/// Backends by API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Providers {
    /// For inference.
    pub inference: Vec<InferenceProvider>,
}

/// An OpenAI-compatible backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InferenceProvider {
    /// By which models refer to it.
    pub provider_id: String,
    /// Its kind.
    pub provider_type: String,
    /// How it is reached.
    pub config: ProviderConfig,
}

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderConfig {
    /// Its URL, ending in `/v1`; a variable of the environment may replace it.
    pub base_url: String,
    /// Its key.
    pub api_token: String,
}

/// Models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The models.
    pub models: Vec<RegisteredModel>,
}

/// A model and where it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredModel {
    /// By which agents ask for it.
    pub model_id: String,
    /// Its backend.
    pub provider_id: String,
    /// Its name there.
    pub provider_model_id: String,
    /// Its kind.
    pub model_type: String,
}

impl Ogx {
    /// The new backend under the model's own name; today's, if there is one, under `<name>@today`.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        // With a router, requests come in by the gateway of httproute.yaml, which splits them.
        let service = if verdict.router.is_some() { GATEWAY } else { &verdict.name };
        let url = format!("http://{service}.{}.svc.cluster.local/v1", verdict.namespace);
        let mut inference = vec![provider(&verdict.name, "VLLM_URL", &url)];
        let mut models = vec![model(verdict, &verdict.name, "")];
        if let Some(Backend { name, url, .. }) = &verdict.today {
            let id = format!("{name}-today");
            inference.push(provider(&id, "VLLM_TODAY_URL", url));
            models.push(model(verdict, &id, "@today"));
        }
        Self {
            version: 2,
            apis: vec!["inference".to_owned()],
            providers: Providers { inference },
            registered_resources: Registered { models },
        }
    }
}

fn provider(id: &str, variable: &str, url: &str) -> InferenceProvider {
    InferenceProvider {
        provider_id: id.to_owned(),
        provider_type: "remote::vllm".to_owned(),
        config: ProviderConfig {
            base_url: format!("${{env.{variable}:={url}}}"),
            api_token: "${env.VLLM_API_TOKEN:=none}".to_owned(),
        },
    }
}

fn model(verdict: &Verdict, provider: &str, suffix: &str) -> RegisteredModel {
    RegisteredModel {
        model_id: verdict.model.clone() + suffix,
        provider_id: provider.to_owned(),
        provider_model_id: verdict.model.clone(),
        model_type: "llm".to_owned(),
    }
}
