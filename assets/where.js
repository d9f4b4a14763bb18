// Guesses the country, whose helplines are then shown first. The time zone tells where a device is; the region of its
// language, which many never set, only where there is no zone. Everything happens here: the server hears two letters.
window.remansoCountry = (() => {
  // Of tzdata's zone.tab, by the last part of each name; with the older names that browsers still give.
  const ZONES = `
ES Madrid Ceuta Canary
MX Mexico_City Cancun Merida Monterrey Matamoros Chihuahua Ciudad_Juarez Ojinaga Mazatlan Bahia_Banderas Hermosillo
 Tijuana Ensenada Santa_Isabel
AR Buenos_Aires Cordoba Salta Jujuy Tucuman Catamarca La_Rioja San_Juan Mendoza San_Luis Rio_Gallegos Ushuaia
 ComodRivadavia Rosario
CO Bogota
CL Santiago Coyhaique Punta_Arenas Easter
PE Lima
EC Guayaquil Galapagos
BO La_Paz
PY Asuncion
UY Montevideo
VE Caracas
GT Guatemala
HN Tegucigalpa
SV El_Salvador
NI Managua
CR Costa_Rica
PA Panama
CU Havana
DO Santo_Domingo
PR Puerto_Rico
GQ Malabo
US New_York Detroit Louisville Monticello Indianapolis Vincennes Winamac Marengo Petersburg Vevay Chicago Tell_City
 Knox Menominee Center New_Salem Beulah Denver Boise Phoenix Los_Angeles Anchorage Juneau Sitka Metlakatla Yakutat
 Nome Adak Honolulu Knox_IN Atka Fort_Wayne Shiprock Johnston
GB London Belfast
IE Dublin
CA St_Johns Halifax Glace_Bay Moncton Goose_Bay Blanc-Sablon Toronto Iqaluit Atikokan Winnipeg Resolute Rankin_Inlet
 Regina Swift_Current Edmonton Cambridge_Bay Inuvik Creston Dawson_Creek Fort_Nelson Whitehorse Dawson Vancouver
 Montreal Nipigon Pangnirtung Rainy_River Thunder_Bay Yellowknife Coral_Harbour
AU Lord_Howe Macquarie Hobart Melbourne Sydney Broken_Hill Brisbane Lindeman Adelaide Darwin Perth Eucla Canberra Currie
NZ Auckland Chatham
IN Kolkata Calcutta
PH Manila`;
  const NOWHERE = /^(UTC|GMT|Etc\/.*|Atlantic\/Reykjavik)?$/; // what a browser says that keeps its place to itself
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  if (!NOWHERE.test(zone)) {
    const row = ZONES.split(/\n(?=[A-Z]{2} )/).find((row) => row.split(/\s+/).includes(zone.split("/").pop()));
    return row ? row.trim().slice(0, 2) : "";
  }
  const region = (navigator.languages.find((tag) => tag.includes("-")) || "").split("-").pop().toUpperCase();
  return /^[A-Z]{2}$/.test(region) ? region : "";
})();
