/* The "Jobs" tab: the AWS jobs that a task waits for.
 *
 * It reads the XComs of the task from Airflow's API, with the viewer's session.
 * Invariants: the content of an XCom becomes text, never markup; only https: addresses and pages of a local AWS become
 * links; whatever is missing, malformed or too large is left out, and the rest is shown. */

const UPDATE_INTERVAL = 10_000; // milliseconds
const MAX_BYTES = 16 * 2 ** 20; // of a response
const MAX_CELLS = 100_000;
const FIRST_ROWS = 100; // of a table, until more are requested
const MAX_TASKS = 500; // of a run, for which XComs are read
const MAX_LISTED = 5000; // entries of a list
const MAX_PARALLEL = 6; // requests
const MAX_LOG_LINES = 200; // of an earlier try
const LOCAL_PAGES = "/jobflow-console/"; // path of the pages of a local AWS
const NOTES = "jobflow_jobs", RESULT = "return_value"; // keys of XComs

const NOUNS = { batch: "Batch job", ecs: "ECS task", glue_crawl: "Glue crawl", glue_run: "Glue job run" };
const OPERATORS = /^(Batch(Job|Map)|(Ecs|Fargate)(Task|Map)|Glue(Crawl|JobRun))(Operator|Sensor)$/u;
const ENDED_STATES = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]); // of a task
const PREPARED = new Set(["STARTING", "ACTIVATING", "PROVISIONING"]); // statuses of a job that is being started
const isPrepared = (status, service) => PREPARED.has(status) || (status === "PENDING" && service === "ecs");
const CELLS = { // color and text for each character of a string of cells
  S: ["succeeded", "succeeded"], F: ["failed", "failed"], K: ["stopped", "stopped"], R: ["running", "running"],
  s: ["starting", "starting"], U: ["unknown", "could not be described"],
  "-": ["never", "not started"], ".": ["unknown", "not failed so far"],
};
const OUR_STOP = /^(Airflow: |The (\w+ )?(deadline of the )?Airflow task )/u; // the reason that Airflow passes to AWS when it stops a job
const FINAL_CELLS = { "-": ["never", "never started"] }; // after the end

// Reading values of any type: each function returns the type that its name says.

const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const record = (value) => (isRecord(value) ? value : {});
const list = (value) => (Array.isArray(value) ? value : []);
const text = (value, most = 4000) => {
  if (typeof value === "number" && Number.isFinite(value)) return String(value);
  if (typeof value !== "string") return "";
  return value.length > most ? `${value.slice(0, most)}…` : value;
};
const integer = (value) => (Number.isInteger(value) ? value : null);
const count = (value) => (Number.isInteger(value) && value >= 0 ? value : 0);
const time = (value) => {
  const at = typeof value === "string" && value.length < 64 ? Date.parse(value) : NaN;
  return Number.isNaN(at) ? null : at;
};
const isLocalPage = (url) => url.protocol === "http:" && url.pathname.startsWith(LOCAL_PAGES);
const link = (value) => {
  if (typeof value !== "string" || value.length > 8000) return null;
  try {
    const url = new URL(value);
    return url.protocol === "https:" || isLocalPage(url) ? value : null;
  } catch {
    return null;
  }
};

/** The console's page of a log, derived from that of its job. */
function logLink(log, page) {
  const group = text(record(log).group), stream = text(record(log).stream), known = link(page);
  if (!group || !stream || !known) return null;
  const url = new URL(known), region = url.searchParams.get("region");
  if (region && isLocalPage(url)) {
    return `${url.origin}${LOCAL_PAGES}log?${new URLSearchParams({ region: text(record(log).region) || region, group, stream })}`;
  }
  if (!region || !url.hostname.startsWith("console.")) return null;
  const plus = (part) => encodeURIComponent(part).replaceAll("%20", "+");
  return `${url.origin}/cloudwatch/home?region=${encodeURIComponent(region)}` +
    `#logsV2:log-groups/log-group/${plus(group)}/log-events/${plus(stream)}`;
}

/** The console's page of a child, derived from that of its array. */
function childPage(page, parent, index) {
  const known = parent && link(page);
  return known && known.includes(parent) ? known.replace(parent, encodeURIComponent(`${parent}:${index}`)) : null;
}

const UNITS = { vcpu_seconds: "vCPU", gib_seconds: "GiB", gpu_seconds: "GPU", dpu_seconds: "DPU" };
const amount = (value) => (typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : null);

/** What jobs used; null if that is not known. */
function readUsage(value) {
  if (!isRecord(value)) return null;
  const amounts = Object.fromEntries(Object.keys(UNITS).map((name) => [name, amount(value[name])]).filter((each) => each[1] !== null));
  return { amounts, queued: amount(value.queued_seconds), capacity: text(value.capacity, 100), estimated: value.estimated === true, cost: amount(value.cost) };
}

/** One job of an outcome or a note. */
function readJob(value, service = "") {
  const from = record(value), links = record(from.links);
  const page = link(from.console_url) ?? link(links.console);
  return {
    service, id: text(from.job_id ?? from.id, 2000), name: text(from.name, 500), status: text(from.status, 60),
    state: text(from.state, 20), reason: text(from.reason), containerReason: text(from.container_reason),
    exitCode: integer(from.exit_code), attempt: count(from.attempt), maxAttempts: count(from.max_attempts),
    stopAsked: time(from.stop_requested_at), created: time(from.created_at), started: time(from.started_at), stopped: time(from.stopped_at),
    page, log: link(links.log) ?? logLink(from.log, page), stream: text(record(from.log).stream, 500),
    group: text(record(from.log).group, 500), details: isRecord(from.details) ? from.details : null,
    usage: readUsage(from.usage), result: from.result ?? null, resultUri: text(from.result_uri, 2000), resultError: text(from.result_error),
    seen: list(from.seen).filter((each) => Array.isArray(each)).map((each) => [text(each[0], 60), time(each[1])])
      .filter(([status, at]) => status && at !== null),
  };
}

/** The children of an array, or the items of a map. */
function readArray(value, job, extra) {
  const from = record(value), size = count(from.size);
  if (!size) return null;
  const statuses = typeof extra.statuses === "string" ? extra.statuses : "";
  const isMap = Boolean(statuses) || from.kind === "map";
  let cells = statuses || (typeof from.cells === "string" ? from.cells : "");
  if (!cells && Array.isArray(from.failed_indexes) && size <= MAX_CELLS) {
    const failed = from.failed_indexes.filter((index) => integer(index) !== null && index >= 0 && index < size);
    // Without a list of all failed children, the state of the others is not known.
    const rest = failed.length >= count(from.failed) ? "S" : ".";
    const characters = new Array(size).fill(rest);
    for (const index of failed) characters[index] = "F";
    cells = characters.join("");
  }
  if (cells.length !== size || size > MAX_CELLS) cells = "";
  const known = new Map(); // jobs by index
  const add = (each, index) => {
    if (!isRecord(each) || integer(index) === null || index < 0 || index >= size) return;
    const child = readJob(each);
    if (!isMap) {
      child.id ||= job.id ? `${job.id}:${index}` : "";
      child.page ??= childPage(job.page, job.id, index);
      child.log ??= logLink(each.log, child.page);
    }
    known.set(index, child);
  };
  if (Array.isArray(extra.outcomes)) extra.outcomes.forEach((each, index) => add(each, index));
  for (const each of [...list(extra.failed), ...list(from.failed_jobs)]) add(each, record(each).index);
  const counted = {};
  for (const character of cells) counted[character] = (counted[character] ?? 0) + 1;
  const given = record(from.counts ?? from);
  // Cells that are not known yet are missing in their counts, but not in those of the service.
  const counts = cells && !cells.includes(".") ? {
    succeeded: counted.S ?? 0, failed: counted.F ?? 0, stopped: counted.K ?? 0,
    running: (counted.R ?? 0) + (counted.s ?? 0),
  } : {
    succeeded: count(given.succeeded), failed: count(given.failed), stopped: count(given.stopped),
    running: count(given.running),
  };
  const begun = counts.succeeded + counts.failed + counts.stopped + counts.running;
  counts.rest = Math.max(0, size - begun);
  job.begun = begun > 0 && job.started === null; // AWS reports no start time for some arrays
  return { isMap, noun: isMap ? "Item" : "Child", many: isMap ? "items" : "children", size, cells, counts, known, again: text(from.started_again, 300) };
}

/** The number of jobs per state. */
function tally(jobs, counts = {}) {
  const states = { SUCCEEDED: count(counts.SUCCEEDED), FAILED: count(counts.FAILED) };
  if (!isRecord(counts) || !Object.keys(counts).length) for (const { state } of jobs) if (state in states) states[state] += 1;
  return states;
}

/** The content of an XCom; null if it is not one of this package. */
function readXcom(value) {
  if (Array.isArray(value)) {
    const parts = value.slice(0, 1000).map(readXcom).filter(Boolean);
    if (!parts.length || parts.length < Math.min(value.length, 1000)) return null;
    const jobs = parts.flatMap((each) => each.jobs);
    return { ...parts[0], jobs, total: value.length, states: tally(jobs), array: null };
  }
  if (!isRecord(value)) return null;
  if (typeof value.service !== "string" || !(value.service in NOUNS)) return null;
  if (Array.isArray(value.jobs)) {
    const jobs = value.jobs.slice(0, 1000).filter(isRecord).map((each) => readJob(each, value.service));
    const first = jobs[0] ?? readJob({});
    const diagnosis = record(value.diagnosis);
    return {
      service: value.service, jobs, total: Math.max(jobs.length, count(value.total)), at: time(value.at), states: tally(jobs, record(value.counts)),
      final: value.final === true, newer: Number.isInteger(value.v) && value.v > 1, error: text(value.error, 20_000), help: link(value.help),
      array: readArray(value.array, first, record(value.array)),
      diagnosis: text(diagnosis.summary) ? { summary: text(diagnosis.summary), advice: text(diagnosis.advice), blame: text(diagnosis.blame, 200) } : null,
    };
  }
  if (typeof value.state !== "string" || typeof value.status !== "string") return null;
  const job = readJob(value, value.service);
  return {
    service: value.service, jobs: [job], total: 1, states: tally([job]), at: null, final: value.state !== "SUBMITTED", newer: false, error: "",
    array: readArray(value.array, job, value), diagnosis: null,
  };
}

/** The content of both XComs. The result is the later one; the note adds what it leaves out. */
function merged(notes, result) {
  if (!notes || !result) return notes ?? result;
  if (notes.final && result.jobs[0]?.state === "SUBMITTED") return notes;
  const before = new Map(notes.jobs.map((job) => [job.id, job]));
  const jobs = result.jobs.map((job) => ({ ...job, seen: before.get(job.id)?.seen ?? [] }));
  const array = result.array ?? notes.array;
  if (array && notes.array) for (const [index, child] of notes.array.known) if (!array.known.has(index)) array.known.set(index, child);
  return { ...result, jobs, array, ...(notes.final ? { diagnosis: notes.diagnosis, error: notes.error, help: notes.help } : {}) };
}

// Airflow's API.

class HttpError extends Error {
  constructor(status) {
    super(`Airflow answered with ${status}`);
    this.status = status;
  }
}

const ROOT = new URL("../", document.location.href.split(/[?#]/u)[0]);

/** The response of Airflow's API; undefined for 404. */
async function ask(path, parameters = {}) {
  const url = new URL(`api/v2/${path}`, ROOT);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  const response = await fetch(url).catch(() => { throw new HttpError(0); }); // with the viewer's session
  if (response.status === 404) return undefined;
  if (!response.ok) throw new HttpError(response.status);
  return JSON.parse(await bodyOf(response));
}

/** The body of a response.
 * @throws RangeError if it is larger than MAX_BYTES
 */
async function bodyOf(response) {
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let read = 0, body = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return body + decoder.decode();
    read += value.byteLength;
    if (read > MAX_BYTES) {
      await reader.cancel();
      throw new RangeError("too large");
    }
    body += decoder.decode(value, { stream: true });
  }
}

const part = (value) => encodeURIComponent(value);
const inRun = (at) => `dags/${part(at.dag)}/dagRuns/${part(at.run)}`;
const taskPage = (at, rest) => new URL(`dags/${part(at.dag)}/runs/${part(at.run)}/tasks/${part(at.task)}${at.map >= 0 ? `/mapped/${at.map}` : ""}${rest}`, ROOT).href;
const inTask = (at) => `${inRun(at)}/taskInstances/${part(at.task)}`;

/** All entries of a list that Airflow returns in pages. */
async function pages(path, parameters, name) {
  const all = [];
  for (;;) {
    const answer = record(await ask(path, { ...parameters, limit: 100, offset: all.length }));
    const more = list(answer[name]).filter(isRecord);
    all.push(...more);
    if (!more.length || all.length >= count(answer.total_entries) || all.length >= MAX_LISTED) return all;
  }
}

/** The XComs of this package that a task or a run has. Reading one that does not exist would be logged as an error. */
const listed = (path, parameters) => pages(`${path}/xcomEntries`, { ...parameters, xcom_key_pattern: `${NOTES}|${RESULT}` }, "xcom_entries");

/** The value of an XCom; if it cannot be read, a message is added to `trouble`. */
async function xcom(at, key, trouble) {
  try {
    const answer = await ask(`${inTask(at)}/xcomEntries/${part(key)}`, { map_index: at.map });
    let value = record(answer).value;
    if (typeof value === "string" && value.length > 1 && "[{".includes(value[0])) value = JSON.parse(value);
    return value;
  } catch (error) {
    const wrong = error instanceof RangeError ? "is too large to be shown" : error instanceof SyntaxError ? "is not valid JSON"
      : error instanceof HttpError && error.status !== 401 ? "could not be read" : null;
    if (!wrong) throw error;
    trouble.push(`The XCom ${key} ${wrong}.`);
    return undefined;
  }
}

/** The content of the XComs of a task.
 * @param keys the keys of the XComs that exist
 */
async function contentOf(at, keys) {
  const trouble = [];
  const [notes, result] = await Promise.all([NOTES, RESULT].map((key) => (keys.has(key) ? xcom(at, key, trouble) : undefined)));
  const ours = [readXcom(notes), readXcom(result)];
  if (notes !== undefined && !ours[0]) trouble.push(`The XCom ${NOTES} has an unknown format.`);
  if (ours[0]?.newer) trouble.push("This note was written by a newer version of airflow-jobflow. Some of it may be missing.");
  return { content: merged(...ours), trouble };
}

// Formatting.

const zone = (() => {
  try {
    const chosen = localStorage.getItem("timezone")?.replaceAll('"', "");
    return chosen && chosen !== "local" ? new Intl.DateTimeFormat("en", { timeZone: chosen }).resolvedOptions().timeZone : undefined;
  } catch {
    return undefined;
  }
})();
const CLOCK = new Intl.DateTimeFormat(undefined, { timeZone: zone, hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const CALENDAR = new Intl.DateTimeFormat(undefined, { timeZone: zone, dateStyle: "medium" });
const IN_FULL = new Intl.DateTimeFormat(undefined, { timeZone: zone, dateStyle: "full", timeStyle: "long" });
const NUMBER = new Intl.NumberFormat("en");
const AMOUNT = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const number = (value) => NUMBER.format(value);
const plural = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : noun.endsWith("child") ? "ren" : "s"}`;

function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const all = Math.round(seconds);
  if (all < 60) return `${all} s`;
  const two = (value) => String(value).padStart(2, "0");
  if (all < 3600) return `${Math.floor(all / 60)} min ${two(all % 60)} s`;
  if (all < 86400) return `${Math.floor(all / 3600)} h ${two(Math.floor(all / 60) % 60)} min`;
  return `${Math.floor(all / 86400)} d ${Math.floor(all / 3600) % 24} h`;
}

const nounOf = (service) => NOUNS[service] ?? "Job";

/** Whether Airflow stopped a job: a note says so, or the reason that AWS returns is ours. */
const byAirflow = (job) => job.state !== "SUCCEEDED" && (job.stopAsked !== null || (job.state === "FAILED" && OUR_STOP.test(job.reason)));
/** When a job ended; if that is not known, when Airflow stopped it. */
const endOf = (job) => job.stopped ?? job.stopAsked;
/** The number of failed children or items of a job that succeeded. */
const tolerated = (model) => (model?.array && model.jobs[0]?.state === "SUCCEEDED" ? model.array.counts.failed + model.array.counts.stopped : 0);

/** The color and the text for the state of a job. */
function standing(job, isOver = false) {
  if (job.state === "SUCCEEDED") return ["succeeded", "Succeeded"];
  if (byAirflow(job)) return ["stopped", "Stopped by Airflow"];
  if (job.state === "FAILED") return job.status === "STOPPED" && job.exitCode === null ? ["stopped", "Stopped"] : ["failed", "Failed"];
  if (isOver) return ["unknown", job.status ? `Last seen ${job.status}` : "Not known"];
  if (job.state === "RUNNING") return ["running", "Running"];
  if (isPrepared(job.status, job.service)) return ["starting", "Starting"];
  return ["queued", "Queued"];
}

// Drawing. All text is put into text nodes.

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key === "tone") element.style.setProperty("--tone", `var(--${value})`);
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((each) => each || each === 0));
  return element;
}

const [span, div, p] = ["span", "div", "p"].map((name) => (style, ...children) => make(name, { class: style || null }, ...children));

/** Announce to screen readers. */
const announce = (words) => { document.getElementById("said").textContent = words; };
const foot = (...words) => p("foot", ...words);
const dot = (shape = "dot") => make("span", { class: shape, "aria-hidden": "true" });
const badge = ([tone, word], live = false) =>
  make("span", { class: live ? "badge live" : "badge", tone }, dot(), word);

const row = (...children) => div("row", ...children), spread = (...children) => div("row spread", ...children);
const head = (kind, ...children) => make("header", { class: "head" }, p("kind", kind), ...children);

/** A card with a heading. */
const card = (id, title, ...children) =>
  make("section", { class: "card", "aria-labelledby": id }, Array.isArray(title) ? spread(make("h2", { id }, title[0]), title[1]) : make("h2", { id }, title), ...children);

/** A table that scrolls. A heading that begins with > aligns its column right. */
function table(id, heads, rows) {
  const side = (place) => (heads[place].startsWith(">") ? "right num" : null);
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": id, "data-key": id },
    make("table", {}, make("thead", {}, make("tr", {}, heads.map((words, place) => make("th", { scope: "col", class: side(place) }, words.replace(">", ""))))),
      make("tbody", {}, rows.map(({ chosen = false, cells }) => make("tr", { class: chosen && "chosen" }, cells.map((cell, place) => make("td", { class: side(place) }, cell ?? "–")))))));
}

const logOf = (job) => outward(job?.log, "Log", false) ?? outward(job?.page, "Console", false);
const reasons = (job) => [job?.containerReason, job?.reason].filter(Boolean).join("; ");
const code = (job) => (!job || job.exitCode === null ? null : String(job.exitCode));
const between = (from, to) => (from == null || to == null ? null : duration(to - from));

const SVG = "http://www.w3.org/2000/svg";
function icon(path, size = 14) {
  const svg = document.createElementNS(SVG, "svg"), line = document.createElementNS(SVG, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true" })) svg.setAttribute(key, value);
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}
const OUT = "M15 3h6v6M21 3l-9 9M19 14v5a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V7a2 2 0 0 1 2-2h5";
const GRID = "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h6v6h-6z";

/** Open a link from Airflow's own page: the frame of a tab must not open windows. */
function follow(event) {
  const anchor = event.currentTarget;
  let outer;
  try {
    outer = window.parent === window ? null : window.parent.document;
  } catch {
    return;
  }
  if (!outer || (event.type === "auxclick" && event.button !== 1)) return;
  event.preventDefault();
  const inOuter = outer.createElement("a");
  inOuter.href = anchor.href;
  if (anchor.target || event.type === "auxclick" || event.ctrlKey || event.metaKey || event.shiftKey) inOuter.target = "_blank";
  inOuter.rel = "noopener noreferrer";
  inOuter.click();
}

const following = { onclick: follow, onauxclick: follow };
function outward(url, words, asButton = true) {
  if (!url) return null;
  return make("a", { href: url, target: "_blank", rel: "noopener noreferrer", class: asButton && "button", ...following }, words, " ", icon(OUT, 12), span("unseen", " (opens in a new tab)"));
}

function at(moment) {
  return make("time", { datetime: new Date(moment).toISOString(), title: IN_FULL.format(moment) }, CLOCK.format(moment));
}

/** Text that is updated every second. */
const clocks = new Set();
function passing(write) {
  const element = span("num", write());
  clocks.add([element, write]);
  return element;
}
setInterval(() => {
  if (!document.hidden) for (const [element, write] of clocks) element.textContent = write();
}, 1000);

// One job.

/** The phases of a job: name, color, start, and end or last known time. */
function phasesOf(job, isOver, lastKnown) {
  const { created, started, seen } = job, prepared = seen.find(([status]) => isPrepared(status, job.service))?.[1] ?? null;
  const began = created !== null && prepared > created && (started === null || prepared < started) ? prepared : null;
  const end = endOf(job) ?? (isOver ? lastKnown : null), phases = [];
  const add = (name, tone, from, to) => from !== null && phases.push({ name, tone, from, to });
  if (job.begun) add("Queued and running", "running", created, end);
  else {
    add("Queued", "queued", created, began ?? started ?? end);
    add("Starting", "starting", began, started ?? end);
    add("Running", "running", started, end);
  }
  return phases;
}

function timeline(job, isOver, lastKnown, taskEnd) {
  const phases = phasesOf(job, isOver, lastKnown), ended = endOf(job);
  const bar = make("div", { class: "bar", "aria-hidden": "true" });
  const until = (phase) => phase.to ?? (isOver ? phase.from : Date.now());
  const steps = make("ol", { class: "phases" });
  for (const phase of phases) {
    const live = phase.to === null && !isOver, least = isOver && ended === null && phase === phases.at(-1) ? "at least " : "";
    const piece = make("span", { tone: phase.tone, class: live && "striped" });
    piece.style.flexGrow = String(Math.max(until(phase) - phase.from, 1));
    bar.append(piece);
    steps.append(make("li", { tone: phase.tone },
      span("name", phase.name),
      phase.to === null && isOver ? span("length ahead", "?") : span("length", live ? passing(() => duration(Date.now() - phase.from)) : span("num", least, duration(until(phase) - phase.from))),
      span("at", "from ", at(phase.from))));
  }
  const [tone, word] = standing(job, isOver);
  if (ended !== null) {
    steps.append(make("li", { tone }, span("name", word),
      span("length num", job.created === null ? "" : `${duration(ended - job.created)} in all`),
      span("at", "at ", at(ended), " on ", CALENDAR.format(ended))));
  } else if (isOver) {
    steps.append(make("li", { tone: "unknown" }, span("name", word), span("length ahead", "end not known"),
      taskEnd === null ? "" : span("at", "the task ended at ", at(taskEnd))));
  } else {
    for (const name of job.started === null && !job.begun ? ["Running", "Ended"] : ["Ended"]) {
      steps.append(make("li", { tone: "never" }, span("name muted", name), span("length ahead", "–")));
    }
  }
  return card("timeline", "Timeline",
    phases.length ? bar : null,
    phases.length || ended !== null ? steps : p("muted", isOver ? "No times are known for this job." : "AWS has not reported any times yet."));
}

/** A list of names and values; names without a value are left out. */
const factList = (entries) => make("dl", { class: "facts" }, entries.filter(([, ...value]) => value.some((each) => each !== "" && each != null)).map(([name, ...value]) => div("", make("dt", {}, name), make("dd", {}, ...value))));

/** An amount of something that was used for some seconds, such as 12.5 vCPU-hours. */
function used(seconds, unit) {
  const [value, per] = seconds < 3600 ? [seconds, "seconds"] : [seconds / 3600, "hours"];
  return `${AMOUNT.format(value)} ${unit}-${per}`;
}

/** What jobs used, as text; empty if that is not known. */
function usageText(usage) {
  const amounts = Object.entries(UNITS).filter(([name]) => usage?.amounts[name]).map(([name, unit]) => used(usage.amounts[name], unit));
  return amounts.length ? `${usage.estimated ? "about " : ""}${amounts.join(", ")}${usage.capacity ? ` on ${usage.capacity}` : ""}` : "";
}
const costText = (usage) => (usage?.cost == null ? "" : `${usage.estimated ? "about " : ""}${AMOUNT.format(usage.cost)}`);

/** The sum of what jobs used. */
function usageOfAll(usages) {
  const known = usages.filter(Boolean), sum = { amounts: {}, capacity: "", estimated: known.some((each) => each.estimated), cost: null };
  for (const each of known) {
    for (const [name, seconds] of Object.entries(each.amounts)) sum.amounts[name] = (sum.amounts[name] ?? 0) + seconds;
    if (each.cost !== null) sum.cost = (sum.cost ?? 0) + each.cost;
  }
  return sum;
}

const usageFacts = (usage) => [["Used", usageText(usage)], ["Cost", costText(usage)]];

/** What the job returned. */
function result(job) {
  if (job.result === null && !job.resultError && !job.resultUri) return null;
  const value = job.result === null ? "" : text(JSON.stringify(job.result, null, 2), 20_000);
  return card("result", "Result",
    job.resultError ? warning(job.resultError) : null,
    value ? make("pre", { tabindex: "0", class: "result", role: "region", "aria-label": "Result" }, value) : null,
    job.resultUri ? p("muted", "In ", make("code", {}, job.resultUri)) : null);
}

function facts(job, service) {
  const mono = (value) => (value ? make("code", {}, value) : null);
  return make("section", { class: "card", "aria-label": `About the ${nounOf(service)}` }, factList([
    ["Id", mono(job.id)],
    ["AWS status", job.status],
    ["Exit code", code(job)],
    ["Attempt", job.maxAttempts > 1 ? `${job.attempt} of ${job.maxAttempts}` : ""],
    ["AWS reason", reasons(job)],
    ["Log", mono(job.group && job.stream ? `${job.group} ${job.stream}` : "")],
    ...usageFacts(job.usage),
    ...Object.entries(job.details ?? {}).slice(0, 20).map(([name, value]) => [text(name, 80).replaceAll("_", " "),
      isRecord(value) || Array.isArray(value) ? text(JSON.stringify(value), 400) : typeof value === "boolean" ? (value ? "yes" : "no") : text(value, 400)]),
  ]));
}

/** What the items of a map used. */
const mapFacts = (job) => (usageText(job.usage) ? make("section", { class: "card", "aria-label": "About the map" }, factList(usageFacts(job.usage))) : null);

/** Text in which https: addresses are links. */
const linked = (words) => words.split(/(https:\/\/\S+)/u).map((each) => (link(each) ? outward(each, each, false) : each));

function why(model, state = "") {
  const job = model.jobs.find((each) => each.state === "FAILED") ?? model.jobs[0];
  if (!model.diagnosis && !model.error && model.jobs.some(byAirflow)) {
    const [jobs, them] = model.total > 1 || model.array?.isMap ? ["jobs", "them"] : ["job", "it"];
    return warning(ENDED_STATES.has(state) && model.final ? `The task was set to ${state} before its ${jobs} ended, so Airflow stopped ${them}.` : `Airflow stopped the ${jobs}.`, reasons(job) ? ` Reason given to AWS: ${reasons(job)}.` : "");
  }
  const failed = model.diagnosis || model.error || (job?.state === "FAILED" && !(model.array && model.array.counts.failed + model.array.counts.stopped === 0));
  if (!failed) return null;
  const reason = reasons(job), lines = model.error.split("\n");
  const because = lines.find((line) => line.startsWith("Why: "));
  const logged = lines.filter((line) => LOGGED.test(line)).map((line) => line.replace(LOGGED, ""));
  const section = card("why", /^(Could not stop|Stop these)/u.test(model.error) ? "Not stopped" : "Why it failed",
    p("summary", model.diagnosis ? `${model.diagnosis.summary.replace(/\.$/u, "")}.` : reason || lines[0] || "AWS gives no reason."),
    model.diagnosis ? model.diagnosis.advice && p("", model.diagnosis.advice) : because && p("", because.slice(5)),
    make("p", { class: "row muted" },
      model.diagnosis?.blame && model.diagnosis.blame !== "unknown" ? span("", `Where to look: ${model.diagnosis.blame}`) : null,
      code(job) && span("", `Exit code ${code(job)}`),
      model.diagnosis && reason ? span("", model.array?.isMap ? reason : `AWS says: ${reason}`) : null,
      outward(model.help, "What to do", false)),
    logged.length ? [p("muted", (lines.find((line) => line.startsWith("Last lines of the log")) ?? "Last lines of the log").replace(/:$/u, "")), make("pre", { tabindex: "0", class: "log", role: "region", "aria-label": "Last lines of the log" }, logged.join("\n"))] : null,
    model.error && (model.diagnosis || reason || lines[1]) ? make("details", {}, make("summary", {}, "Full error message"), make("pre", { tabindex: "0" }, linked(model.error))) : null);
  section.classList.add("why");
  return section;
}
const LOGGED = /^\s+\| ?/u; // a line of a job's log, within an error

// Arrays and maps.

let chosen = null; // the index of the child that is shown
let focused = 0; // the index of the cell that the keyboard has selected
let shownRows = FIRST_ROWS;

const toneOf = (character, isOver) => (isOver && FINAL_CELLS[character]) || CELLS[character] || CELLS["."];

function progress(model, isOver) {
  const { counts, size, isMap, many: noun } = model.array;
  const done = counts.succeeded + counts.failed + counts.stopped;
  const parts = [
    ["succeeded", "succeeded", counts.succeeded], ["failed", !isMap && model.jobs.some(byAirflow) ? "failed or stopped" : "failed", counts.failed], ["stopped", "stopped", counts.stopped],
    ["running", "running", counts.running], ["never", isOver ? (isMap ? "never started" : "did not end") : "waiting", counts.rest],
  ].filter((each) => each[2]);
  const bar = make("div", { class: "bar thick", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": String(size), "aria-valuenow": String(done), "aria-label": `${number(done)} of ${number(size)} ended` });
  for (const [tone, , many] of parts) {
    const piece = make("span", { tone });
    piece.style.flexGrow = String(many);
    bar.append(piece);
  }
  return card("progress", noun[0].toUpperCase() + noun.slice(1),
    make("p", { class: "totals" },
      span("", span("big num", number(done)), span("muted", ` of ${number(size)} ${noun} ended`)),
      span("muted num", `${Math.floor((done * 100) / size)} %`)),
    bar,
    make("ul", { class: "legend" }, parts.map(([tone, words, many]) => make("li", { tone }, dot("dot square"), span("", make("b", { class: "num" }, number(many)), ` ${words}`)))),
    model.array.again && p("muted", model.array.again));
}

/** The heat map: a canvas with a cell for each child, which can be used with the arrow keys. */
function heatMap(model, isOver, choose) {
  const { cells, size, noun, many, known, counts } = model.array;
  if (!cells) return null;
  const canvas = make("canvas", { tabindex: "0", role: "application", "aria-roledescription": "heat map", "aria-describedby": "how", "aria-label": `${number(size)} ${many}, ${number(counts.failed)} failed` });
  const tip = make("div", { class: "tip", hidden: true });
  const box = div("map", canvas, tip);
  let columns = 1, step = 8, hovered = null;
  focused = Math.min(focused, size - 1);

  function describe(index) {
    const child = known.get(index), word = toneOf(cells[index], isOver)[1];
    const more = [code(child) && `exit code ${code(child)}`, reasons(child)].filter(Boolean).join(", ");
    return `${noun} ${index}: ${word}${more ? `, ${more.slice(0, 160)}` : ""}`;
  }

  function draw() {
    const width = box.clientWidth;
    if (!width) return;
    step = Math.max(4, Math.min(24, Math.floor(Math.sqrt((width * 300) / size))));
    columns = Math.max(1, Math.floor(width / step));
    const rows = Math.ceil(size / columns), height = rows * step, ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement), gap = step > 5 ? (step > 12 ? 2 : 1) : 0.5, side = step - gap;
    // Drawn by color, because changing the color is slow.
    const byTone = new Map();
    for (let index = 0; index < size; index += 1) {
      const [tone] = toneOf(cells[index], isOver);
      if (!byTone.has(tone)) byTone.set(tone, []);
      byTone.get(tone).push(index);
    }
    for (const [tone, indexes] of byTone) {
      pen.fillStyle = style.getPropertyValue(tone === "succeeded" ? "--calm" : `--${tone}`);
      pen.beginPath();
      for (const index of indexes) pen.rect((index % columns) * step, Math.floor(index / columns) * step, side, side);
      pen.fill();
    }
    for (const index of new Set([document.activeElement === canvas ? focused : null, chosen, hovered])) {
      if (index === null || index >= size) continue;
      pen.strokeStyle = style.getPropertyValue("--text");
      pen.lineWidth = 2;
      pen.strokeRect((index % columns) * step - 0.5, Math.floor(index / columns) * step - 0.5, side + 1, side + 1);
    }
  }

  function indexAt(event) {
    const area = canvas.getBoundingClientRect(), column = Math.floor((event.clientX - area.left) / step);
    const index = Math.floor((event.clientY - area.top) / step) * columns + column;
    return column < columns && column >= 0 && index >= 0 && index < size ? index : null;
  }

  function showTip(index) {
    tip.hidden = index === null;
    if (index === null) return;
    tip.textContent = describe(index);
    const left = (index % columns) * step, top = Math.floor(index / columns) * step;
    tip.style.left = `${Math.max(0, Math.min(left, box.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = top > tip.offsetHeight + 8 ? `${top - tip.offsetHeight - 6}px` : `${top + step + 6}px`;
  }

  canvas.addEventListener("pointermove", (event) => { hovered = indexAt(event); showTip(hovered); draw(); });
  canvas.addEventListener("pointerleave", () => { hovered = null; showTip(null); draw(); });
  canvas.addEventListener("click", (event) => {
    const index = indexAt(event);
    if (index === null) return;
    focused = index;
    choose(index);
    draw();
  });
  canvas.addEventListener("focus", () => { announce(describe(focused)); draw(); });
  canvas.addEventListener("blur", () => { showTip(null); draw(); });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -size, End: size };
    if (event.key in moves) {
      focused = Math.max(0, Math.min(size - 1, focused + moves[event.key]));
      announce(describe(focused));
      showTip(focused);
      draw();
    } else if (event.key === "Enter" || event.key === " ") {
      choose(focused);
      draw();
    } else if (event.key === "f") {
      // The next child that failed or was stopped.
      for (let hop = 1; hop <= size; hop += 1) {
        const index = (focused + hop) % size;
        if ("FKU".includes(cells[index])) { focused = index; announce(describe(index)); showTip(index); draw(); break; }
      }
    } else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(box);
  themes.add(draw);
  const input = make("input", { type: "number", min: "0", max: String(size - 1), inputmode: "numeric", value: chosen ?? "", "data-key": "goto" });
  input.addEventListener("change", () => {
    const index = Number.parseInt(input.value, 10);
    if (index >= 0 && index < size) { focused = index; choose(index); draw(); }
  });
  const present = [...new Set(cells)].map((character) => toneOf(character, isOver));
  return card("cells", [`Every ${noun.toLowerCase()}`, make("label", { class: "goto" }, `${noun} `, input)],
    box,
    spread(
      make("ul", { class: "legend muted" }, present.map(([tone, words]) => make("li", { tone: tone === "succeeded" ? "calm" : tone }, dot("dot square"), words))),
      make("p", { class: "foot", id: "how" }, "Arrow keys move, Enter shows details, f jumps to the next failure")));
}

function childCard(model, index, isOver) {
  const { cells, known, isMap, noun } = model.array, child = known.get(index);
  const [tone, word] = toneOf(cells?.[index] ?? ".", isOver);
  const job = model.jobs[0];
  const page = child?.page ?? (isMap ? null : childPage(job?.page, job?.id, index));
  const id = child?.id || (!isMap && job?.id ? `${job.id}:${index}` : "");
  return make("div", { class: "child", tone, role: "group", "aria-label": `${noun} ${index}` },
    spread(
      row(make("strong", {}, `${noun} ${index}`), badge([tone, word])),
      row(outward(child?.log, "Log"), outward(page, "Console"))),
    factList([["Exit code", code(child)], ["Reason", reasons(child)], ["Queued", between(child?.created, child?.started)], ["Ran", between(child?.started, child?.stopped)],
      ["Ended", child && child.stopped !== null ? at(child.stopped) : ""], ["Id", id ? make("code", {}, id) : ""]]),
    child ? null : foot(isMap ? "Large maps keep the details of failed items only." : "Only its state is known here. See the console for details."));
}

function failedTable(model, isOver, choose, redraw) {
  const { cells, known, noun, counts } = model.array;
  const bad = cells ? [...cells].flatMap((each, index) => ("FKU".includes(each) ? index : [])) : [...known].flatMap(([index, child]) => (child.state === "FAILED" ? index : []));
  bad.sort((one, other) => one - other);
  const many = Math.max(bad.length, counts.failed + counts.stopped);
  if (!many) return null;
  const rows = bad.slice(0, shownRows).map((index) => {
    const child = known.get(index), [tone, word] = toneOf(cells?.[index] ?? "F", isOver);
    return { chosen: index === chosen, cells: [
      make("button", { class: "index", type: "button", "data-key": `row${index}`, onclick: () => choose(index) }, String(index)),
      make("span", { class: "state", tone }, dot(), word),
      code(child), reasons(child) || null, between(child?.started, child?.stopped),
      logOf(child),
    ] };
  });
  const more = bad.length > shownRows && make("button", { class: "button", type: "button", "data-key": "more", onclick: () => { shownRows += 900; redraw(); } }, `Show more of ${number(bad.length)}`);
  return card("failed", [`${tolerated(model) ? "Tolerated failures" : "What failed"}: ${number(many)} of ${number(model.array.size)}`, more],
    bad.length ? table("failed", [noun, "State", ">Exit code", "Reason", ">Ran", ">Log"], rows)
      : p("muted", "The failed ones are not known yet."));
}

// A task instance.

/** Whether no other note follows in this try. The task itself may be retried. */
const isFinal = (model) => Boolean(model?.final);

/** The color and the text for the state of all jobs of a task. */
function standingOfAll(model, isOver) {
  if (!model.jobs.length && model.error) return ["failed", "Failed"]; // before a job was started
  if (model.total > 1) {
    const { SUCCEEDED: well, FAILED: badly } = model.states;
    if (badly) return ["failed", `${number(badly)} failed`];
    return well === model.total ? ["succeeded", "Succeeded"] : [isOver ? "unknown" : "running", `${number(well)} of ${number(model.total)} ended`];
  }
  const stands = standing(model.jobs[0] ?? readJob({}), isOver), begun = model.jobs[0]?.begun;
  // The status of an array does not say that its children run.
  return !isOver && begun && ["queued", "starting"].includes(stands[0]) ? ["running", "Running"] : stands;
}

function header(model, place, isOver, found) {
  const job = model.jobs[0], noun = nounOf(model.service), several = model.total > 1, stands = standingOfAll(model, isOver);
  const kind = model.array ? (model.array.isMap ? `Map of ${noun}s` : "Batch array job") : several ? "Jobs" : noun;
  return head(kind,
    spread(
      row(make("h1", {}, several ? plural(model.total, noun) : job?.name || place.task), badge(stands, !isOver && stands[0] !== "succeeded"),
        tolerated(model) ? badge(["stopped", `${plural(tolerated(model), "failure")} tolerated`]) : null),
      row(tryChooser(place, found), several ? null : [outward(job?.page, "Console"), outward(job?.log, "Log")])));
}

/** The menu of the task's tries, if there are several. */
function tryChooser(place, found) {
  if (found.tries.length < 2) return null;
  const now = found.instance.try_number;
  const select = make("select", { "data-key": "try" }, found.tries.map((each) => make("option", { value: each.try_number, selected: each.try_number === (chosenTry ?? now) },
    `${each.try_number}: ${each.try_number === now ? "latest" : stateWords(each.state)}`)));
  select.addEventListener("change", () => {
    const number = Number(select.value);
    chosenTry = number === now ? null : number;
    keeping(document.getElementById("page"), () => drawTask(place, found));
  });
  return make("label", { class: "goto" }, "Try ", select);
}
const stateWords = (state) => text(state, 40).replaceAll("_", " ") || "not started";
let chosenTry = null; // the number of the earlier try that is shown
const logsOfTries = new Map(); // by number

/** The log of an earlier try. Airflow deletes its XComs when the next try starts. */
async function readLog(place, number) {
  const answer = record(await ask(`${inTask(place)}/logs/${number}`, { map_index: place.map, full_content: true }));
  const entries = list(answer.content).filter(isRecord);
  const raised = entries.flatMap((each) => list(each.error_detail).slice(0, 1)).map((each) => text(record(each).exc_value, 20_000)).filter(Boolean).at(-1);
  const ours = entries.filter((each) => text(each.logger).includes("airflow_jobflow")).map((each) => [time(each.timestamp), text(each.event)]);
  return { error: raised ?? "", lines: ours.slice(-MAX_LOG_LINES), trouble: "" };
}

function drawTry(place, found) {
  const main = document.getElementById("page"), number = chosenTry, one = found.tries.find((each) => each.try_number === number) ?? {};
  const redraw = () => chosenTry === number && keeping(main, () => drawTask(place, found));
  const logged = logsOfTries.get(number), from = time(one.start_date), to = time(one.end_date);
  if (!logged) {
    readLog(place, number).catch((error) => ({ error: "", lines: [], trouble: error instanceof HttpError && error.status === 403 ? "You may not read this task's logs." : "The log of this try could not be read." }))
      .then((read) => { logsOfTries.set(number, read); redraw(); });
  }
  const state = stateWords(one.state), tone = { success: "succeeded", failed: "failed", "up for retry": "failed" }[state] ?? "unknown";
  main.replaceChildren(
    head(`Try ${number} of ${found.tries[0].try_number}`,
      spread(row(make("h1", {}, place.task), badge([tone, `Task ${state}`])),
        row(tryChooser(place, found), make("a", { href: taskPage(place, `?try_number=${number}`), class: "button", ...following }, "Task log")))),
    logged?.trouble ? warning(logged.trouble) : "",
    logged?.error ? why({ error: logged.error, jobs: [], total: 0, diagnosis: null, array: null, help: null }) : "",
    make("section", { class: "card", "aria-label": "About this try" }, 
      factList([["Started", from && at(from)], ["Ended", to && [at(to), " on ", CALENDAR.format(to)]], ["Took", between(from, to)]])),
    !logged ? foot("Reading the log of this try …") : logged.lines.length ? card("logged", "What the task logged about its jobs", table("logged", ["Time", "Line"],
      logged.lines.map(([moment, words]) => ({ cells: [moment === null ? null : at(moment), linked(words)] })))) : foot("The log of this try contains nothing about its jobs."));
}

function several(model, isOver) {
  const rows = model.jobs.map((job) => {
    const end = endOf(job) ?? (isOver ? null : Date.now());
    return { cells: [
      [job.name || "–", make("br"), make("code", { class: "muted" }, job.id)], badge(standing(job, isOver)),
      between(job.created, job.started ?? end), between(job.started, end), code(job), reasons(job) || null,
      logOf(job),
    ] };
  });
  return card("all", model.jobs.length < model.total ? `The first ${number(model.jobs.length)} of ${plural(model.total, "job")}` : "Every job",
    table("all", ["Job", "State", ">Queued", ">Ran", ">Exit code", "Reason", ">Log"], rows));
}

function note(title, ...paragraphs) {
  return make("section", { class: "note" }, icon(GRID, 34), make("h1", {}, title), paragraphs.map((each) => p("", each)));
}

const warning = (...words) => make("p", { class: "warn", role: "note" }, ...words);

function emptyTask(state, operator) {
  if (operator && !OPERATORS.test(operator)) return note("No jobs here", "This task does not run jobs on AWS through airflow-jobflow.");
  if (!state || ["scheduled", "queued", "none"].includes(state)) return note("Not started yet", "The job appears here as soon as the task starts it.");
  if (ENDED_STATES.has(state) || state === "up_for_retry") {
    return note("Nothing to show", "This try left no record of its jobs, for example because of do_xcom_push=False. See the task log.");
  }
  return note("No updates yet", "Jobs appear about ten seconds after the task starts to wait for them, but never with do_xcom_push=False.");
}

function drawTask(place, found) {
  const { content: model, trouble, instance } = found, state = text(record(instance).state, 40);
  const isLive = !ENDED_STATES.has(state), isOver = !isLive || isFinal(model), main = document.getElementById("page");
  const choose = (index) => {
    chosen = index;
    redraw();
    announce(`${model.array.noun} ${index} is shown below the heat map`);
  };
  const redraw = () => keeping(main, () => drawTask(place, found));
  clocks.clear();
  themes.clear();
  if (chosenTry !== null && found.tries.length) {
    drawTry(place, found);
    return;
  }
  if (!model) {
    const choice = tryChooser(place, found);
    main.replaceChildren(...trouble.map((words) => warning(words)), choice ? row(choice) : "", trouble.length ? note("The jobs cannot be shown", "See the task log.")
      : emptyTask(state, text(record(instance).operator, 200)));
    return;
  }
  if (model.array && chosen !== null && chosen >= model.array.size) chosen = null;
  const single = model.total <= 1, job = model.jobs[0] ?? readJob({});
  const taskEnd = isLive ? null : time(record(instance).end_date), isSensor = text(record(instance).operator, 200).endsWith("Sensor");
  const parts = [header(model, place, isOver, found), ...trouble.map((words) => warning(words)), why(model, state)];
  const spared = tolerated(model);
  if (spared) parts.push(warning(`${number(spared)} of ${plural(model.array.size, model.array.noun.toLowerCase())} failed. The task tolerates this many, so it succeeded.`));
  if (model.array) {
    const map = heatMap(model, isOver, choose);
    parts.push(progress(model, isOver), map);
    if (chosen !== null) (map ?? parts.at(-2)).append(childCard(model, chosen, isOver));
    if (!map) parts.push(foot("Only the totals are known, not the state of each."));
    parts.push(failedTable(model, isOver, choose, redraw));
  }
  if (single && model.jobs.length) parts.push(timeline(job, isOver, model.final ? model.at : taskEnd ?? model.at, taskEnd), model.array?.isMap ? mapFacts(job) : facts(job, model.service), result(job));
  else if (!single) parts.push(several(model, isOver));
  if (isLive) {
    const seen = model.at ?? Date.now(), again = state === "up_for_retry" ? " The task will be retried." : "";
    parts.push(foot("As of ", at(seen), " (", passing(() => `${duration(Date.now() - seen)} ago`), `).${again} This page updates every ten seconds.`));
  } else if (job.state !== "SUCCEEDED" && job.state !== "FAILED" && !byAirflow(job) && model.jobs.length) {
    parts.push(foot(isSensor ? "A sensor never stops a job: it may still be running." : "Last known state before the task ended. See the task log for what happened to the job."));
  }
  main.replaceChildren(...parts.filter(Boolean));
  for (const each of main.querySelectorAll("pre.log")) each.scrollTop = each.scrollHeight;
}

/** Redraw without losing the focus and the scroll positions. */
function keeping(main, draw) {
  const active = document.activeElement, key = active?.dataset?.key ?? (active?.tagName === "CANVAS" ? "canvas" : null);
  const typed = key === "goto" ? active.value : null;
  const scrolled = [...main.querySelectorAll(".scroll")].map((each) => each.scrollTop);
  const open = [...main.querySelectorAll("details")].map((each) => each.open);
  draw();
  [...main.querySelectorAll(".scroll")].forEach((each, place) => { each.scrollTop = scrolled[place] ?? 0; });
  [...main.querySelectorAll("details")].forEach((each, place) => { each.open = open[place] ?? false; });
  if (!key) return;
  const again = key === "canvas" ? main.querySelector("canvas") : main.querySelector(`[data-key="${CSS.escape(key)}"]`);
  again?.focus({ preventScroll: true });
  if (again && typed !== null) again.value = typed;
}

// A run.

async function loadRun(place) {
  const run = await ask(inRun(place));
  if (run === undefined) return { missing: true };
  const tasks = await pages(`${inRun(place)}/taskInstances`, {}, "task_instances");
  const trouble = [];
  let noted = [];
  try {
    noted = await listed(`${inRun(place)}/taskInstances/~`, {});
  } catch (error) {
    if (!(error instanceof HttpError && error.status === 403)) throw error;
    trouble.push("You may not read this run's XComs, so its jobs cannot be shown.");
    return { run, rows: [], trouble, live: false, left: 0 };
  }
  const has = new Map(); // keys of XComs by task instance
  for (const each of noted) {
    const name = `${each.task_id} ${each.map_index}`;
    has.set(name, (has.get(name) ?? new Set()).add(each.key));
  }
  const keysOf = (each) => has.get(`${each.task_id} ${each.map_index}`) ?? new Set();
  // XComs of tasks that are not of this package are not read.
  const ours = tasks.filter((each) => OPERATORS.test(each.operator) || keysOf(each).has(NOTES));
  const asked = ours.slice(0, MAX_TASKS), rows = [];
  let next = 0;
  await Promise.all(Array.from({ length: MAX_PARALLEL }, async () => {
    while (next < asked.length) {
      const number = next++, instance = asked[number];
      const at = { ...place, task: text(instance.task_id, 500), map: integer(instance.map_index) ?? -1 };
      const key = `${at.task} ${at.map} ${instance.try_number} ${instance.state}`;
      if (!ended.has(key)) {
        const found = await contentOf(at, keysOf(instance));
        if (ENDED_STATES.has(instance.state)) ended.set(key, found);
        rows[number] = { at, instance, ...found };
      } else rows[number] = { at, instance, ...ended.get(key) };
    }
  }));
  for (const row of rows) trouble.push(...row.trouble.map((words) => `${row.at.task}: ${words}`));
  return { run, rows, trouble: trouble.slice(0, 5), live: ours.some((each) => !ENDED_STATES.has(each.state)) || !["success", "failed"].includes(run.state), left: ours.length - asked.length };
}
const ended = new Map(); // the content of the XComs of ended tasks

function drawRun(place, found) {
  const main = document.getElementById("page");
  clocks.clear();
  themes.clear();
  const rows = found.rows.map((row) => {
    const job = row.content?.jobs[0] ?? null, isOver = ENDED_STATES.has(row.instance.state) || isFinal(row.content);
    const jobs = row.content?.jobs ?? [];
    const first = (name) => jobs.map((each) => each[name]).filter((moment) => moment !== null).sort((one, other) => one - other)[0] ?? null;
    const last = jobs.length && jobs.every((each) => endOf(each) !== null) ? Math.max(...jobs.map(endOf)) : null;
    const created = first("created"), started = first("started"), end = last ?? (isOver ? null : Date.now());
    return { ...row, job, jobs, isOver, created, started, end };
  });
  if (!rows.length) {
    main.replaceChildren(...found.trouble.map((words) => warning(words)), note("No jobs in this run", "None of its tasks runs jobs on AWS through airflow-jobflow."));
    return;
  }
  const known = rows.filter((row) => row.created !== null);
  const from = Math.min(...known.map((row) => row.created));
  const to = Math.max(...known.map((row) => row.end ?? row.started ?? row.created));
  const share = (value) => `${(value * 100).toFixed(3)}%`, length = Math.max(to - from, 1);
  rows.sort((one, other) => (one.created ?? Infinity) - (other.created ?? Infinity));
  const lines = [];
  let failedTasks = 0, failedJobs = 0, jobsInAll = 0;
  for (const row of rows) {
    const { at: where, job, jobs, content: model, isOver } = row;
    const left = job?.begun ? null : row.started ?? row.end, began = job?.begun ? row.created : row.started;
    const queued = row.created === null || left === null ? null : left - row.created;
    const ran = row.started === null || row.end === null ? null : row.end - row.started;
    jobsInAll += model ? (model.array?.size ?? model.total) : 0;
    const state = text(row.instance.state, 40);
    const stands = model ? standingOfAll(model, isOver) : [isOver ? "unknown" : "queued", state.replaceAll("_", " ") || "not started"];
    failedTasks += state === "failed";
    failedJobs += job && byAirflow(job) ? 0 : model?.array ? model.array.counts.failed : model && model.jobs.length ? (model.total > 1 ? model.states.FAILED : Number(stands[0] === "failed")) : 0;
    const spared = tolerated(model);
    // With raise_on_failure=False, a task succeeds although its job failed.
    const other = stands[0] === "failed" && state === "success" ? "task succeeded" : stands[0] === "succeeded" && state === "failed" ? "task failed" : "";
    const span = make("div", { class: "span", "aria-hidden": "true" });
    const piece = (tone, begin, finish) => {
      const bit = make("i", { tone });
      bit.style.left = share((begin - from) / length);
      bit.style.width = share(Math.max(0, finish - begin) / length);
      span.append(bit);
    };
    if (queued !== null) piece("queued", row.created, left);
    if (began !== null && row.end !== null) piece(stands[0] === "queued" ? "running" : stands[0], began, row.end);
    const what = !model ? "" : model.array ? `${plural(model.array.size, model.array.noun.toLowerCase())}, ${number(model.array.counts.failed)} failed${spared ? ", tolerated" : ""}` : model.jobs.length > 1 ? `${number(model.total)} jobs` : "";
    lines.push({ cells: [
      [make("a", { href: taskPage(where, "/plugin/jobflow"), "data-key": `${where.task} ${where.map}`.replaceAll('"', ""), ...following }, where.task, where.map >= 0 ? ` [${where.map}]` : ""),
        div("muted", [model ? nounOf(model.service) : "", jobs.length === 1 && job.name !== where.task ? job.name : "", what].filter(Boolean).join(" · "))],
      [badge(stands, !isOver && stands[0] === "running"), other ? div("muted", other) : ""], queued === null ? null : duration(queued), ran === null ? null : duration(ran), span,
    ] });
  }
  const clock = (value) => (known.length ? CLOCK.format(value) : "–");
  // A job counts once, even if an operator starts it and a sensor waits for it.
  const byJob = new Map(rows.flatMap((row) => row.jobs.filter((each) => each.usage).map((each) => [each.id || `${row.at.task} ${row.at.map}`, each.usage])));
  const inAll = usageOfAll([...byJob.values()]);
  main.replaceChildren(
    head("Jobs of this run",
      row(make("h1", {}, `${plural(rows.length, "task")}, ${plural(jobsInAll, "job")}`), [[failedTasks, "task"], [failedJobs, "job"]].map(([many, noun]) => (many ? badge(["failed", `${plural(many, noun)} failed`]) : null)))),
    ...found.trouble.map((words) => warning(words)),
    card("jobs", ["Time queued and running", known.length ? p("", make("b", {}, duration(to - from)), " from the first job to the last") : null],
      table("jobs", ["Task", "State", ">Queued", ">Running", `From ${clock(from)} to ${clock(to)}`], lines)),
    usageText(inAll) ? make("section", { class: "card", "aria-label": "Usage of this run" }, factList([["Used by the jobs of this run", usageText(inAll)], ["Cost", costText(inAll)]])) : "",
    found.left ? foot(`${plural(found.left, "more task")} of this run are not shown.`) : "");
}

// The page.

const themes = new Set(); // functions that redraw when the theme changes

function followTheme() {
  const here = document.documentElement;
  let outer = null;
  try {
    outer = window.parent === window ? null : window.parent.document.documentElement;
  } catch {
    outer = null; // not Airflow's own window
  }
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    here.classList.toggle("dark", outer ? outer.classList.contains("dark") : system.matches);
    const page = outer && getComputedStyle(outer.ownerDocument.body).backgroundColor;
    if (page?.startsWith("rgb(")) here.style.setProperty("--page", page);
    for (const draw of themes) draw();
  };
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
  else system.addEventListener("change", apply);
  apply();
}

async function loadTask(place) {
  const instance = await ask(`${inTask(place)}/${place.map}`) ?? (place.map < 0 ? await ask(inTask(place)) : undefined);
  if (instance === undefined) return { missing: true };
  const live = !ENDED_STATES.has(instance.state), tries = await triesOf(place, instance);
  try {
    const keys = new Set((await listed(inTask(place), { map_index: place.map })).map((each) => each.key));
    return { ...await contentOf(place, keys), instance, live, tries };
  } catch (error) {
    if (!(error instanceof HttpError && error.status === 403)) throw error;
    return { content: null, trouble: ["You may not read this task's XComs, so its jobs cannot be shown."], instance, live, tries };
  }
}

/** The tries of a task that has several, the latest first. */
async function triesOf(place, instance) {
  if (!(instance.try_number > 1)) return [];
  const path = place.map < 0 ? "tries" : `${place.map}/tries`;
  const answer = await ask(`${inTask(place)}/${path}`).catch((error) => { if (error.status === 401) throw error; });
  const all = new Map(list(record(answer).task_instances).filter((each) => isRecord(each) && count(each.try_number)).map((each) => [each.try_number, each]));
  all.set(instance.try_number, instance);
  return [...all.values()].sort((one, other) => other.try_number - one.try_number).slice(0, MAX_LOG_LINES);
}

function trouble(error) {
  const status = error instanceof HttpError ? error.status : 0;
  if (status === 401) return note("You are not signed in", "Sign in to Airflow and open this page again.");
  if (status === 403) return note("Access denied", "Your Airflow account may not see this.");
  return note(status ? `Airflow answered with ${status}` : "Airflow cannot be reached", "Retrying in ten seconds.");
}

function main() {
  followTheme();
  const given = new URLSearchParams(document.location.search);
  const named = (name) => {
    const value = given.get(name) ?? "";
    return /^\{[A-Z_]+\}$/u.test(value) ? "" : value; // Airflow does not replace a placeholder without a value
  };
  const map = Number.parseInt(named("map_index"), 10);
  const place = { dag: named("dag_id"), run: named("run_id"), task: named("task_id"), map: Number.isInteger(map) && map >= 0 ? map : -1 };
  const page = document.getElementById("page");
  if (!place.dag || !place.run) {
    page.replaceChildren(note("No task instance given", "Open this page from the Jobs tab of a task instance or a DAG run."));
    page.removeAttribute("aria-busy");
    return;
  }
  const [load, draw] = place.task ? [loadTask, drawTask] : [loadRun, drawRun];
  let before = "", timer = 0, loading = false;
  const update = async () => {
    if (loading || document.hidden) return;
    loading = true;
    clearTimeout(timer);
    let again = true;
    try {
      const found = await load(place);
      if (found.missing) page.replaceChildren(note("Not found", place.task ? "No such task instance." : "No such run."));
      else {
        const now = JSON.stringify(found, (_key, value) => (value instanceof Map ? [...value] : value));
        if (now !== before || (!place.task && found.live)) keeping(page, () => draw(place, found));
        before = now;
        again = found.live;
      }
    } catch (error) {
      if (![HttpError, SyntaxError, RangeError].some((kind) => error instanceof kind)) throw error;
      if (!before || [401, 403].includes(error.status)) {
        page.replaceChildren(trouble(error));
        before = "";
      }
      again = ![401, 403].includes(error.status);
    } finally {
      loading = false;
      page.removeAttribute("aria-busy");
    }
    performance.mark("shown");
    if (again) timer = setTimeout(update, UPDATE_INTERVAL);
  };
  document.addEventListener("visibilitychange", update);
  update();
}

main();
