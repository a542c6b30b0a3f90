//! Units: UCUM expressions, converted to the signal's canonical unit.
//!
//! Of a substance whose molar mass is known ([`MOLAR_MASSES`]) amounts and masses are converted into each other, as laboratories give either.

use haar_schema::SignalId;
use octofhir_ucum::{AdvancedConversionContext, convert_with_context};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The longest unit that a device may name.
pub const MAX_UNIT_BYTES: usize = 64;

/// How many pairs of signal and unit are remembered; devices name few, and one that invents more
/// only costs time.
const MAX_CACHED_UNITS: usize = 256;

/// Grams in a mole of what is measured (IUPAC's standard atomic weights, 2021, abridged).
const MOLAR_MASSES: [(SignalId, f64); 9] = [
    // Of a mole of urea two of nitrogen are counted.
    (SignalId::UREA_NITROGEN, 28.014),
    (SignalId::CALCIUM, 40.078),
    (SignalId::CREATININE, 113.12),
    (SignalId::BILIRUBIN_DIRECT, 584.67),
    (SignalId::BILIRUBIN_TOTAL, 584.67),
    (SignalId::BLOOD_GLUCOSE, 180.156),
    (SignalId::GLUCOSE, 180.156),
    (SignalId::MAGNESIUM, 24.305),
    // Phosphate is given as phosphorus.
    (SignalId::PHOSPHATE, 30.974),
];

/// From a device's unit to the canonical one: canonical = `factor` × value + `offset`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Conversion {
    pub factor: f64,
    pub offset: f64,
}

impl Conversion {
    /// `None` if `unit` is no UCUM unit, not commensurable with the signal's, or on a logarithmic
    /// scale.
    pub(crate) fn new(unit: &str, signal: SignalId) -> Option<Self> {
        let canonical = signal.definition().unit;
        let molar = || {
            let (_, g_per_mol) = MOLAR_MASSES.iter().find(|(own, _)| *own == signal)?;
            // What is canonical of these is a mass in a volume.
            let (amount, mass) = (Self::between(unit, "mol/L")?, Self::between("g/L", canonical)?);
            let is_linear = amount.offset == 0.0 && mass.offset == 0.0;
            is_linear
                .then_some(Self { factor: amount.factor * g_per_mol * mass.factor, offset: 0.0 })
        };
        Self::between(unit, canonical).or_else(molar)
    }

    fn between(unit: &str, canonical: &str) -> Option<Self> {
        if unit.is_empty() || unit.len() > MAX_UNIT_BYTES {
            return None;
        }
        if unit == canonical {
            return Some(Self { factor: 1.0, offset: 0.0 });
        }
        let context = AdvancedConversionContext::default();
        let result = convert_with_context(1.0, unit, canonical, &context).ok()?;
        let conversion = Self { factor: result.factor?.to_f64(), offset: result.offset?.to_f64() };
        (conversion.factor.is_finite() && conversion.factor != 0.0 && conversion.offset.is_finite())
            .then_some(conversion)
    }

    pub(crate) fn apply(self, value: f64) -> f64 {
        value * self.factor + self.offset
    }
}

/// Conversions from the units that devices name in their frames, remembered.
#[derive(Default)]
pub(crate) struct UnitCache(Mutex<HashMap<(SignalId, String), Option<Conversion>>>);

impl UnitCache {
    /// As [`Conversion::new`].
    pub(crate) fn conversion(&self, unit: &str, signal: SignalId) -> Option<Conversion> {
        if unit.len() > MAX_UNIT_BYTES {
            return None;
        }
        // Every insertion leaves the map whole, so a panic elsewhere has not spoiled it.
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (signal, unit.to_owned());
        if let Some(known) = cache.get(&key) {
            return *known;
        }
        let conversion = Conversion::new(unit, signal);
        if cache.len() < MAX_CACHED_UNITS {
            cache.insert(key, conversion);
        }
        conversion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_devices_use_are_converted() {
        for (signal, value, unit, expected) in [
            (SignalId::TEMPERATURE, 98.6, "[degF]", 37.0),
            (SignalId::TEMPERATURE, 310.15, "K", 37.0),
            (SignalId::TEMPERATURE, 36.9, "Cel", 36.9),
            (SignalId::HEART_RATE, 1.2, "/s", 72.0),
            (SignalId::HEART_RATE, 1.2, "Hz", 72.0),
            (SignalId::HEART_RATE, 72.0, "{beats}/min", 72.0),
            (SignalId::SPO2, 0.97, "1", 97.0),
            (SignalId::SYSTOLIC, 16.0, "kPa", 120.010_201),
            (SignalId::ECG, 1_500.0, "uV", 1.5),
            (SignalId::OXYGEN_FLOW, 500.0, "mL/min", 0.5),
            (SignalId::LEUKOCYTES, 12.5, "10*9/L", 12.5),
            (SignalId::INSPIRED_OXYGEN, 0.4, "1", 40.0),
            (SignalId::HEMOGLOBIN, 130.0, "g/L", 13.0),
            (SignalId::CREATININE, 100.0, "umol/L", 1.131_2),
            (SignalId::UREA_NITROGEN, 7.0, "mmol/L", 19.609_8),
            (SignalId::BLOOD_GLUCOSE, 5.5, "mmol/L", 99.085_8),
            (SignalId::BILIRUBIN_TOTAL, 17.1, "umol/L", 0.999_785_7),
        ] {
            let found = Conversion::new(unit, signal).unwrap().apply(value);
            assert!((found - expected).abs() < 1e-6, "{value} {unit} gave {found}");
        }
    }

    #[test]
    fn units_of_another_kind_are_refused() {
        for (signal, unit) in [
            (SignalId::TEMPERATURE, "mm[Hg]"),
            (SignalId::TEMPERATURE, "C"),
            (SignalId::CREATININE, "mmol"),
            (SignalId::HEMOGLOBIN, "mmol/L"),
            (SignalId::HEART_RATE, "bpm"),
            (SignalId::ECG, "B[V]"),
            (SignalId::ECG, ""),
            (SignalId::ECG, "m V"),
        ] {
            assert_eq!(Conversion::new(unit, signal), None, "{unit}");
        }
        assert_eq!(Conversion::new(&"m".repeat(MAX_UNIT_BYTES + 1), SignalId::ECG), None);
    }

    #[test]
    fn the_cache_is_bounded_and_answers_the_same() {
        let cache = UnitCache::default();
        for number in 0..2 * MAX_CACHED_UNITS {
            assert_eq!(cache.conversion(&format!("nonsense{number}"), SignalId::ECG), None);
        }
        assert_eq!(cache.0.lock().unwrap().len(), MAX_CACHED_UNITS);
        assert_eq!(cache.conversion("uV", SignalId::ECG), Conversion::new("uV", SignalId::ECG));
    }

    /// The conversions of the UCUM functional tests (ucum-java's copy, section 3).
    #[test]
    fn recorded_ucum_conversions_hold() {
        let data = std::env::var("HAAR_DATA").expect("HAAR_DATA names the folder of recordings");
        let file = "fixtures-health/ucum/ucum-java/src/test/functional-tests-odd.xml";
        let text = std::fs::read_to_string(std::path::Path::new(&data).join(file)).unwrap();
        // Cases in comments are withdrawn.
        let text: String = text
            .split("<!--")
            .map(|part| part.split_once("-->").map_or(part, |(_, behind)| behind))
            .collect();
        let attribute = |case: &str, name: &str| {
            let (_, rest) = case.split_once(&format!(" {name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let mut checked = 0;
        for case in text.split("<case ").skip(1).map(|rest| format!(" {rest}")) {
            let case = case.split_once("/>").map_or(case.as_str(), |(case, _)| case);
            let Some(from) = attribute(case, "srcUnit") else { continue };
            let get = |name| attribute(case, name).unwrap();
            let (id, outcome) = (get("id"), get("outcome"));
            let Some(conversion) = Conversion::between(&from, &get("dstUnit")) else {
                panic!("{id}: {from} does not convert");
            };
            let found = conversion.apply(get("value").parse().unwrap());
            let expected: f64 = outcome.parse().unwrap();
            // An outcome is given to so many digits as it has; 25 for 25.2 is one of them.
            let digits = outcome.bytes().filter(u8::is_ascii_digit).count().min(9) as i32;
            let error = (found - expected).abs() / expected.abs();
            assert!(error <= 5.0 * 10f64.powi(-digits), "{id}: {found} instead of {outcome}");
            checked += 1;
        }
        assert!(checked > 10, "only {checked} conversions found");
    }
}
