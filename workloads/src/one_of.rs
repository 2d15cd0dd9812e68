//! Values written as `{name: parameters}`, and for some also as a bare number or word.
//!
//! Serde's untagged enums would answer a misspelt name with "data did not match any variant". Here the name
//! is looked at first, so that the error can name the nearest known one, at its line and column.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// A value without a name.
pub(crate) enum Bare<'a> {
    Number(f64),
    Text(&'a str),
}

/// A type whose values are written as `{name: parameters}`.
pub(crate) trait OneOf: Sized {
    /// What such a value is, with its article: "a law".
    const WHAT: &'static str;
    /// All names.
    const NAMES: &'static [&'static str];
    /// How one is written.
    const EXAMPLE: &'static str;

    /// Reads the parameters of a known name: the derived `deserialize` of an enum.
    fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;

    /// Reads a value without a name; `None` when there is no such thing.
    fn bare(_value: &Bare<'_>) -> Option<Result<Self, String>> {
        None
    }
}

/// Reads one [`OneOf`].
pub(crate) fn deserialize<'de, T: OneOf, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(OneOfVisitor(PhantomData))
}

/// "did you mean `b`?" when one of `known` is near to `given`, otherwise the list of all.
pub(crate) fn suggestion<'a>(given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let near = |name: &&str| strsim::jaro_winkler(given, name) > 0.75;
    let likeness = |name: &&str| (strsim::jaro_winkler(given, name) * 1e6) as u64;
    match known.clone().filter(near).max_by_key(likeness) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

struct OneOfVisitor<T>(PhantomData<T>);

impl<T: OneOf> OneOfVisitor<T> {
    fn bare<E: de::Error>(self, value: &Bare<'_>) -> Result<T, E> {
        match T::bare(value) {
            Some(read) => read.map_err(E::custom),
            None => Err(E::custom(format!("{} is written for example {}", T::WHAT, T::EXAMPLE))),
        }
    }
}

impl<'de, T: OneOf> Visitor<'de> for OneOfVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, for example {}", T::WHAT, T::EXAMPLE)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        self.bare(&Bare::Number(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        self.bare(&Bare::Number(value as f64))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.bare(&Bare::Number(value as f64))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.bare(&Bare::Text(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let what = T::WHAT;
        let Some(name) = map.next_key_seed(Name { what, known: T::NAMES })? else {
            let example = T::EXAMPLE;
            return Err(de::Error::custom(format!("{what} is written for example {example}")));
        };
        let value = T::named(Named { name, map: &mut map })?;
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(second) => Err(de::Error::custom(format!(
                "`{name}` and `{second}` stand where {what} belongs: keep one"
            ))),
        }
    }
}

/// Reads a name and checks it on the spot, where the deserializer still knows its line and column.
struct Name {
    what: &'static str,
    known: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for Name {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of {}", self.what)
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<&'static str, E> {
        let found = self.known.iter().find(|known| **known == name);
        found.copied().ok_or_else(|| {
            let hint = suggestion(name, self.known.iter().copied());
            E::custom(format!("`{name}` is not {}: {hint}", self.what))
        })
    }
}

/// The map `{name: parameters}` after its name was read, as the enum that serde's derive expects.
struct Named<'a, A> {
    name: &'a str,
    map: &'a mut A,
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Named<'_, A> {
    type Error = A::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Named<'_, A> {
    type Error = A::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), A::Error> {
        let name: StrDeserializer<'_, A::Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Named<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.map.next_value()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(Tuple { len, visitor })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(Struct { fields, visitor })
    }
}

struct Tuple<V> {
    len: usize,
    visitor: V,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Tuple<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_tuple(self.len, self.visitor)
    }
}

struct Struct<V> {
    fields: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Struct<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_struct("parameters", self.fields, self.visitor)
    }
}
