//! The command line of a container: command and args, variables put in, shells looked into.

use std::collections::BTreeMap;

/// Variables nest no deeper than this.
const EXPANSIONS_MAX: usize = 100_000;

/// The words of the vLLM command that `command` and `args` run, `env` put in. Empty when a shell is started
/// without a command for it.
pub(super) fn words(command: &[String], args: &[String], env: &BTreeMap<String, String>) -> Vec<String> {
    let all: Vec<String> = command.iter().chain(args).map(|word| kubernetes_expanded(word, env)).collect();
    let program = all.first().map(|word| word.rsplit('/').next().unwrap_or(word));
    let script = all.iter().position(|word| word.starts_with('-') && word.ends_with('c') && word.len() <= 4);
    match (program, script.and_then(|at| all.get(at + 1))) {
        (Some("sh" | "bash" | "dash" | "ash"), Some(script)) => of_script(script, env),
        _ => all,
    }
}

/// `$(NAME)` as Kubernetes puts it in: known variables only, `$$` stands for `$`.
fn kubernetes_expanded(word: &str, env: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$').filter(|_| expanded.len() < EXPANSIONS_MAX) {
        expanded += &rest[..at];
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')'));
        if let Some((name, after)) = name {
            match env.get(name) {
                Some(value) => expanded += value,
                None => expanded += &rest[..rest.len() - after.len()],
            }
            rest = after;
        } else if let Some(after) = rest.strip_prefix("$$") {
            expanded.push('$');
            rest = after;
        } else {
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded + rest
}

/// The words of the command in `script` that names vLLM; all words when none does.
fn of_script(script: &str, env: &BTreeMap<String, String>) -> Vec<String> {
    let mut commands = vec![Vec::new()];
    for word in split(script, env) {
        match word {
            Word::Plain(text) => commands.last_mut().expect("one is there from the start").push(text),
            Word::Operator => commands.push(Vec::new()),
        }
    }
    let names_vllm = |words: &Vec<String>| words.iter().any(|word| word.contains("vllm"));
    let served = commands.iter().rposition(names_vllm).unwrap_or(0);
    commands.swap_remove(served)
}

enum Word {
    Plain(String),
    /// `;`, `&&`, `|` or the end of a line: another command begins.
    Operator,
}

/// A script as a shell splits it: quotes, escapes and variables, no more.
fn split(script: &str, env: &BTreeMap<String, String>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = script.chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'', None) | ('"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => match chars.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            ('$', None | Some('"')) => {
                let braced = chars.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(part) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(part);
                }
                // A default of `${NAME:-default}` is what stands without the variable.
                let default: String = match braced {
                    true => chars.by_ref().take_while(|c| *c != '}').collect(),
                    false => String::new(),
                };
                let default = default.trim_start_matches([':', '-', '=']);
                let value = env.get(&name).map_or(default, String::as_str);
                let text = match value {
                    "" if name.is_empty() => "$".to_owned(),
                    "" => format!("${{{name}}}"),
                    value => value.to_owned(),
                };
                word.get_or_insert_default().push_str(&text);
            }
            (';' | '&' | '|' | '\n', None) => {
                words.extend(word.take().map(Word::Plain));
                words.push(Word::Operator);
            }
            (c, None) if c.is_whitespace() => words.extend(word.take().map(Word::Plain)),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.map(Word::Plain));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(command: &[&str], args: &[&str]) -> Vec<String> {
        let env = [("MODEL", "Qwen/Qwen3-8B"), ("TP", "2")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        words(&own(command), &own(args), &env)
    }

    #[test]
    fn variables_are_put_in_as_kubernetes_does() {
        let words =
            expanded(&["vllm", "serve"], &["$(MODEL)", "--tensor-parallel-size=$(TP)", "$$(TP)", "$(NO)"]);
        assert_eq!(words, ["vllm", "serve", "Qwen/Qwen3-8B", "--tensor-parallel-size=2", "$(TP)", "$(NO)"]);
    }

    #[test]
    fn a_shell_is_looked_into() {
        let script = "set -e; export A=1\nexec vllm serve \"$MODEL\" \\\n  --tensor-parallel-size ${TP} \
                      --kv-transfer-config '{\"a\": 1}' --max-num-seqs ${SEQS:-64} && echo done";
        let words = expanded(&["/bin/bash", "-ec"], &[script]);
        let options =
            ["--tensor-parallel-size", "2", "--kv-transfer-config", "{\"a\": 1}", "--max-num-seqs", "64"];
        assert_eq!(words, [&["exec", "vllm", "serve", "Qwen/Qwen3-8B"][..], &options].concat());
    }

    #[test]
    fn odd_scripts_end() {
        for script in ["", "'", "\"$", "${", "$", "\\", ";;;&&|", "vllm 'unclosed"] {
            expanded(&["sh", "-c"], &[script]);
        }
        assert!(expanded(&["sh", "-c"], &[]).len() == 2);
    }
}
