// The control API, as a signed-in browser calls it: the cookie says who it is, the key that the call comes from this page.

export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `the control API answered ${status}`);
    this.status = status;
    this.code = error?.code ?? "";
    this.hint = error?.hint ?? "";
  }
}

async function call(method, path, { body, signal, revision } = {}) {
  const headers = { "x-serveconf-key": localStorage.getItem("serveconf-key") ?? "" };
  if (revision) headers["if-match"] = String(revision);
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(`api/v1${path}`, {
    method, headers, signal, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 401) document.dispatchEvent(new CustomEvent("signed-out"));
    throw new Refused(answer.status, told.error);
  }
  return answer;
}

export async function get(path, options) {
  return (await call("GET", path, options)).json();
}

// `revision`: refused where the stack is at another one meanwhile.
export async function post(path, body = {}, { revision } = {}) {
  const answer = await call("POST", path, { body, revision });
  return answer.status === 204 ? null : answer.json();
}

async function* texts(path, signal) {
  const answer = await call("GET", path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function* pieces(path, signal, end) {
  let rest = "";
  for await (const text of texts(path, signal)) {
    const found = (rest + text).split(end);
    rest = found.pop();
    yield found;
  }
}

// One JSON object a line; yields those that came together as one list.
export async function* lines(path, signal) {
  for await (const found of pieces(path, signal, "\n")) {
    const read = found.filter(Boolean).map((line) => JSON.parse(line));
    if (read.length) yield read;
  }
}

// Server-sent events as [kind, data]. `EventSource` can't send the key, so they are read here.
export async function* serverEvents(path, signal) {
  for await (const found of pieces(path, signal, "\n\n")) {
    for (const block of found) {
      let kind = "message";
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("event: ")) kind = line.slice(7);
        else if (line.startsWith("data: ")) data.push(line.slice(6));
      }
      if (data.length) yield [kind, JSON.parse(data.join("\n"))];
    }
  }
}
