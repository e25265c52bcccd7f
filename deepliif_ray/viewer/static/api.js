// Questions to the server of these pages.

async function answered(answer) {
  if (answer.ok) return answer;
  let said = await answer.text();
  try {
    said = JSON.parse(said).error ?? said;
  } catch {
    // it is not JSON but plain words
  }
  throw new Error(said || `the server answered ${answer.status}`);
}

async function asked(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is `deepliif-ray view` still running?");
  }
}

export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const parts = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return given.length ? `${path}?${parts}` : path;
}

export async function get(path, query) {
  return (await answered(await asked(address(path, query)))).json();
}

export async function bytes(path, query) {
  return (await answered(await asked(address(path, query)))).arrayBuffer();
}

export async function post(path, body, form = "json") {
  const answer = await answered(
    await asked(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Deepliif-Ray": "1" },
      body: JSON.stringify(body),
    }),
  );
  return form === "json" ? answer.json() : answer.text();
}

export async function send(path, query, file) {
  const headers = { "Content-Type": "application/octet-stream", "X-Deepliif-Ray": "1" };
  return (await answered(await asked(address(path, query), { method: "POST", headers, body: file }))).json();
}
