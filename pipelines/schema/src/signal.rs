//! The signals Haar knows: one row a signal, with its standard code and canonical unit.
//!
//! Scalars carry LOINC codes; LOINC has none for a running waveform of one lead, so waveforms carry
//! those of ISO/IEEE 11073-10101 (MDC), as the FHIR `SampledData` example does. Units are UCUM.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a code is from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CodeSystem {
    /// <http://loinc.org>
    Loinc,
    /// ISO/IEEE 11073-10101, `urn:iso:std:iso:11073:10101`
    Mdc,
}

impl CodeSystem {
    /// The FHIR system URI.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Loinc => "http://loinc.org",
            Self::Mdc => "urn:iso:std:iso:11073:10101",
        }
    }
}

/// A code of a [`CodeSystem`], as FHIR `Coding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coding {
    /// The system.
    pub system: CodeSystem,
    /// The code in it.
    pub code: &'static str,
    /// What the system calls it.
    pub display: &'static str,
}

/// One number at a time, or a run of samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignalKind {
    /// FHIR `valueQuantity`.
    Scalar,
    /// FHIR `valueSampledData`.
    Waveform,
}

/// One row of the table of signals.
#[derive(Debug)]
pub struct SignalDefinition {
    /// The name used in pipeline definitions and features, such as `heart_rate`.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// The standard code.
    pub coding: Coding,
    /// Canonical UCUM unit; every [`crate::Observation`] of this signal is in it.
    pub unit: &'static str,
    /// Scalar or waveform.
    pub kind: SignalKind,
    /// Values outside are not physiology but a fault of device or profile; closed interval, in `unit`.
    pub plausible: (f64, f64),
}

/// A row of the table of signals. The number is part of the canonical bytes: rows are only added
/// at the end, and there are at most 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalId(u8);

macro_rules! signals {
    ($($id:literal $constant:ident $name:literal $title:literal $system:ident $code:literal $display:literal $unit:literal $kind:ident $low:literal ..= $high:literal;)*) => {
        static TABLE: &[SignalDefinition] = &[$(SignalDefinition {
            name: $name,
            title: $title,
            coding: Coding { system: CodeSystem::$system, code: $code, display: $display },
            unit: $unit,
            kind: SignalKind::$kind,
            plausible: ($low, $high),
        }),*];

        impl SignalId {
            $(#[doc = concat!($title, ": ", $display, ", in `", $unit, "`.")]
            pub const $constant: Self = Self($id);)*
        }
    };
}

signals! {
    0 HEART_RATE "heart_rate" "Heart rate" Loinc "8867-4" "Heart rate" "/min" Scalar 0.0 ..= 350.0;
    1 SPO2 "spo2" "SpO₂" Loinc "59408-5" "Oxygen saturation in Arterial blood by Pulse oximetry" "%" Scalar 0.0 ..= 100.0;
    2 RESPIRATION_RATE "respiration_rate" "Respiration rate" Loinc "9279-1" "Respiratory rate" "/min" Scalar 0.0 ..= 120.0;
    3 SYSTOLIC "systolic" "Systolic pressure" Loinc "8480-6" "Systolic blood pressure" "mm[Hg]" Scalar 0.0 ..= 350.0;
    4 DIASTOLIC "diastolic" "Diastolic pressure" Loinc "8462-4" "Diastolic blood pressure" "mm[Hg]" Scalar 0.0 ..= 300.0;
    5 TEMPERATURE "temperature" "Temperature" Loinc "8310-5" "Body temperature" "Cel" Scalar 10.0 ..= 50.0;
    6 OXYGEN_FLOW "oxygen_flow" "Oxygen flow" Loinc "3151-8" "Inhaled oxygen flow rate" "L/min" Scalar 0.0 ..= 100.0;
    7 ECG "ecg" "ECG lead II" Mdc "131330" "MDC_ECG_ELEC_POTL_II" "mV" Waveform -50.0 ..= 50.0;
    8 PPG "ppg" "Plethysmogram" Mdc "150452" "MDC_PULS_OXIM_PLETH" "1" Waveform -1000000.0 ..= 1000000.0;
    9 RESPIRATION "respiration" "Respiration" Mdc "151552" "MDC_RESP" "1" Waveform -1000000.0 ..= 1000000.0;
    10 AMBIENT_TEMPERATURE "ambient_temperature" "Ambient temperature" Loinc "60832-3" "Room temperature" "Cel" Scalar -200.0 ..= 100.0;
    11 BASE_EXCESS "base_excess" "Base excess" Loinc "11555-0" "Base excess in Blood by calculation" "mmol/L" Scalar -60.0 ..= 60.0;
    12 BICARBONATE "bicarbonate" "Bicarbonate" Loinc "1963-8" "Bicarbonate [Moles/volume] in Serum or Plasma" "mmol/L" Scalar 0.0 ..= 100.0;
    13 INSPIRED_OXYGEN "inspired_oxygen" "Inspired oxygen" Loinc "19994-3" "Oxygen/Inspired gas setting [Volume Fraction] Ventilator" "%" Scalar 10.0 ..= 100.0;
    14 BLOOD_PH "blood_ph" "Blood pH" Loinc "2744-1" "pH of Arterial blood" "[pH]" Scalar 6.0 ..= 9.0;
    15 ARTERIAL_CO2 "arterial_co2" "Arterial CO₂ pressure" Loinc "2019-8" "Carbon dioxide [Partial pressure] in Arterial blood" "mm[Hg]" Scalar 0.0 ..= 250.0;
    16 ARTERIAL_SATURATION "arterial_saturation" "Arterial saturation" Loinc "2708-6" "Oxygen saturation in Arterial blood" "%" Scalar 0.0 ..= 100.0;
    17 ASPARTATE_AMINOTRANSFERASE "aspartate_aminotransferase" "Aspartate aminotransferase" Loinc "1920-8" "Aspartate aminotransferase [Enzymatic activity/volume] in Serum or Plasma" "U/L" Scalar 0.0 ..= 50000.0;
    18 UREA_NITROGEN "urea_nitrogen" "Urea nitrogen" Loinc "3094-0" "Urea nitrogen [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 500.0;
    19 ALKALINE_PHOSPHATASE "alkaline_phosphatase" "Alkaline phosphatase" Loinc "6768-6" "Alkaline phosphatase [Enzymatic activity/volume] in Serum or Plasma" "U/L" Scalar 0.0 ..= 10000.0;
    20 CALCIUM "calcium" "Calcium" Loinc "17861-6" "Calcium [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 40.0;
    21 CHLORIDE "chloride" "Chloride" Loinc "2075-0" "Chloride [Moles/volume] in Serum or Plasma" "mmol/L" Scalar 0.0 ..= 250.0;
    22 CREATININE "creatinine" "Creatinine" Loinc "2160-0" "Creatinine [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 100.0;
    23 BILIRUBIN_DIRECT "bilirubin_direct" "Direct bilirubin" Loinc "1968-7" "Bilirubin.direct [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 100.0;
    24 BLOOD_GLUCOSE "blood_glucose" "Blood glucose" Loinc "2345-7" "Glucose [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 3000.0;
    25 LACTATE "lactate" "Lactate" Loinc "2524-7" "Lactate [Moles/volume] in Serum or Plasma" "mmol/L" Scalar 0.0 ..= 60.0;
    26 MAGNESIUM "magnesium" "Magnesium" Loinc "19123-9" "Magnesium [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 40.0;
    27 PHOSPHATE "phosphate" "Phosphate" Loinc "2777-1" "Phosphate [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 40.0;
    28 POTASSIUM "potassium" "Potassium" Loinc "2823-3" "Potassium [Moles/volume] in Serum or Plasma" "mmol/L" Scalar 0.0 ..= 20.0;
    29 BILIRUBIN_TOTAL "bilirubin_total" "Total bilirubin" Loinc "1975-2" "Bilirubin.total [Mass/volume] in Serum or Plasma" "mg/dL" Scalar 0.0 ..= 150.0;
    30 TROPONIN_I "troponin_i" "Troponin I" Loinc "10839-9" "Troponin I.cardiac [Mass/volume] in Serum or Plasma" "ng/mL" Scalar 0.0 ..= 10000.0;
    31 HEMATOCRIT "hematocrit" "Hematocrit" Loinc "4544-3" "Hematocrit [Volume Fraction] of Blood by Automated count" "%" Scalar 0.0 ..= 100.0;
    32 HEMOGLOBIN "hemoglobin" "Hemoglobin" Loinc "718-7" "Hemoglobin [Mass/volume] in Blood" "g/dL" Scalar 0.0 ..= 40.0;
    33 APTT "aptt" "aPTT" Loinc "14979-9" "aPTT in Platelet poor plasma by Coagulation assay" "s" Scalar 0.0 ..= 1000.0;
    34 LEUKOCYTES "leukocytes" "Leukocytes" Loinc "6690-2" "Leukocytes [#/volume] in Blood by Automated count" "10*3/uL" Scalar 0.0 ..= 2000.0;
    35 FIBRINOGEN "fibrinogen" "Fibrinogen" Loinc "3255-7" "Fibrinogen [Mass/volume] in Platelet poor plasma by Coagulation assay" "mg/dL" Scalar 0.0 ..= 5000.0;
    36 PLATELETS "platelets" "Platelets" Loinc "777-3" "Platelets [#/volume] in Blood by Automated count" "10*3/uL" Scalar 0.0 ..= 5000.0;
    37 GLUCOSE "glucose" "Glucose" Loinc "99504-3" "Glucose [Mass/volume] in Interstitial fluid" "mg/dL" Scalar 0.0 ..= 1000.0;
}

impl SignalId {
    /// The row with this number.
    pub fn from_index(index: u8) -> Option<Self> {
        (usize::from(index) < TABLE.len()).then_some(Self(index))
    }

    /// The row's number.
    pub const fn index(self) -> u8 {
        self.0
    }

    /// The row.
    pub fn definition(self) -> &'static SignalDefinition {
        // Holds by construction: every way to a SignalId checks the length of the table.
        &TABLE[usize::from(self.0)]
    }

    /// The name used in pipeline definitions.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// The signal of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().find(|signal| signal.name() == name)
    }

    /// The signal with that code.
    pub fn by_code(system: CodeSystem, code: &str) -> Option<Self> {
        Self::all().find(|signal| {
            let coding = signal.definition().coding;
            coding.system == system && coding.code == code
        })
    }

    /// All rows in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..TABLE.len() as u8).map(Self)
    }
}

impl fmt::Debug for SignalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name where people read it, the row's number where machines do.
impl Serialize for SignalId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.name())
        } else {
            serializer.serialize_u8(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for SignalId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = if deserializer.is_human_readable() {
            Self::by_name(&String::deserialize(deserializer)?)
        } else {
            Self::from_index(u8::deserialize(deserializer)?)
        };
        found.ok_or_else(|| serde::de::Error::custom("unknown signal"))
    }
}

/// A set of signals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SignalSet(u64);

impl SignalSet {
    /// The set without a signal.
    pub const EMPTY: Self = Self(0);

    /// Adds a signal; `true` if it was not there.
    pub fn insert(&mut self, signal: SignalId) -> bool {
        let before = self.0;
        self.0 |= 1 << signal.index();
        self.0 != before
    }

    /// Whether the signal is in the set.
    pub const fn contains(self, signal: SignalId) -> bool {
        self.0 & (1 << signal.0) != 0
    }

    /// Whether the sets share a signal.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Everything that is in one of the two.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Its signals in order; numbers this version has no row for are passed over.
    pub fn iter(self) -> impl Iterator<Item = SignalId> {
        SignalId::all().filter(move |signal| self.contains(*signal))
    }
}

impl FromIterator<SignalId> for SignalSet {
    fn from_iter<I: IntoIterator<Item = SignalId>>(signals: I) -> Self {
        let mut set = Self::EMPTY;
        for signal in signals {
            set.insert(signal);
        }
        set
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_unique_and_fit_a_set() {
        assert!(TABLE.len() <= 64);
        for signal in SignalId::all() {
            let row = signal.definition();
            assert_eq!(SignalId::by_name(row.name), Some(signal));
            assert_eq!(SignalId::by_code(row.coding.system, row.coding.code), Some(signal));
            assert!(row.plausible.0 < row.plausible.1);
        }
    }

    #[test]
    fn loinc_check_digits_hold() {
        // LOINC Users' Guide, appendix: mod-10 check digit (Luhn).
        for row in TABLE.iter().filter(|row| row.coding.system == CodeSystem::Loinc) {
            let (number, check) = row.coding.code.split_once('-').unwrap();
            let sum: u32 = number
                .bytes()
                .rev()
                .enumerate()
                .map(|(place, digit)| {
                    let digit = u32::from(digit - b'0');
                    if place % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit }
                })
                .sum();
            assert_eq!((10 - sum % 10) % 10, check.parse::<u32>().unwrap(), "{}", row.name);
        }
    }
}
