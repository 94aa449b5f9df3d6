// Two clients of other people use the API: fhir-kit-client and @medplum/core.
// usage: node clients.mjs BASE_URL COOKIE CSRF MODULES
import { strict as assert } from "node:assert";
import { createHash, createPublicKey, randomBytes, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [base, cookie, csrf, modules] = process.argv.slice(2);
// The clients lie outside the checkout, where a bare name would not find them.
async function client(name) {
  const { exports } = JSON.parse(readFileSync(`${modules}/${name}/package.json`, "utf8"));
  const entry = exports["."] ?? exports;
  const file = typeof entry === "string" ? entry : entry.import?.default ?? entry.import ?? entry.default;
  return import(pathToFileURL(`${modules}/${name}/${file}`).href);
}
const headers = { cookie, "x-csrf-token": csrf };
const patient = (family) => ({
  resourceType: "Patient",
  name: [{ family, given: ["Ada"] }],
  birthDate: "1980-02-03",
  identifier: [{ system: "urn:x", value: family }],
});
const observation = (id, value) => ({
  resourceType: "Observation",
  status: "final",
  code: { coding: [{ system: "http://loinc.org", code: "29463-7" }] },
  subject: { reference: `Patient/${id}` },
  effectiveDateTime: `2024-05-0${value}`,
  valueQuantity: { value: 70 + value, unit: "kg" },
});

async function useKit() {
  const module = await client("fhir-kit-client");
  const Client = module.default ?? module.Client;
  const kit = new Client({ baseUrl: base, customHeaders: headers });
  const statement = await kit.capabilityStatement();
  assert.equal(statement.fhirVersion, "4.0.1");
  const made = await kit.create({ resourceType: "Patient", body: patient("Kit") });
  const read = await kit.read({ resourceType: "Patient", id: made.id });
  assert.deepEqual(read, made);
  const updated = await kit.update({
    resourceType: "Patient",
    id: made.id,
    body: { ...read, gender: "female" },
    options: { headers: { "if-match": `W/"${read.meta.versionId}"` } },
  });
  assert.equal(updated.meta.versionId, "2");
  const patched = await kit.patch({
    resourceType: "Patient",
    id: made.id,
    jsonPatch: [{ op: "replace", path: "/gender", value: "other" }],
  });
  assert.equal(patched.gender, "other");
  assert.equal((await kit.vread({ resourceType: "Patient", id: made.id, version: "1" })).gender, undefined);
  const history = await kit.history({ resourceType: "Patient", id: made.id });
  assert.equal(history.entry.length, 3);
  for (const value of [1, 2, 3]) await kit.create({ resourceType: "Observation", body: observation(made.id, value) });
  let page = await kit.search({
    resourceType: "Observation",
    searchParams: { patient: made.id, _sort: "-date", _count: 2, _include: "Observation:patient" },
  });
  const seen = [];
  for (; page; page = await kit.nextPage({ bundle: page })) {
    seen.push(...page.entry.filter((entry) => entry.search.mode === "match").map((entry) => entry.resource.effectiveDateTime));
    assert(page.entry.some((entry) => entry.search.mode === "include" && entry.resource.id === made.id));
  }
  assert.deepEqual(seen, ["2024-05-03", "2024-05-02", "2024-05-01"]);
  const batch = await kit.batch({
    body: { resourceType: "Bundle", type: "batch", entry: [{ request: { method: "GET", url: `Patient/${made.id}` } }] },
  });
  assert.equal(batch.entry[0].resource.id, made.id);
  const transaction = await kit.transaction({
    body: {
      resourceType: "Bundle",
      type: "transaction",
      entry: [{ resource: patient("Bundled"), request: { method: "POST", url: "Patient" } }],
    },
  });
  assert.match(transaction.entry[0].response.status, /^201/);
  const everything = await kit.operation({ name: "everything", resourceType: "Patient", id: made.id, method: "GET" });
  assert.equal(everything.entry.length, 4);
  await assert.rejects(kit.read({ resourceType: "Patient", id: "nobody" }), (error) => error.response.status === 404);
}

async function useMedplum() {
  // The client's module names it while it loads; Node before 22 has none, and nothing here opens one.
  globalThis.WebSocket ??= class {};
  const { MedplumClient } = await client("@medplum/core");
  const plum = new MedplumClient({
    baseUrl: new URL(base).origin,
    fhirUrlPath: "fhir/R4",
    fetch: (url, options) => fetch(url, { ...options, headers: { ...options?.headers, ...headers } }),
  });
  const made = await plum.createResource(patient("Plum"));
  const again = await plum.createResourceIfNoneExist(patient("Plum"), "identifier=urn:x|Plum");
  assert.equal(again.id, made.id);
  assert.equal((await plum.readResource("Patient", made.id)).id, made.id);
  const found = await plum.searchResources("Patient", { family: "Plum", birthdate: "ge1980" });
  assert.deepEqual(found.map((one) => one.id), [made.id]);
  assert.equal(await plum.searchOne("Patient", "family=Nobody"), undefined);
  const patched = await plum.patchResource("Patient", made.id, [{ op: "add", path: "/gender", value: "female" }]);
  assert.equal(patched.gender, "female");
  const versions = await plum.readHistory("Patient", made.id);
  assert.equal(versions.entry.length, 2);
  const upserted = await plum.upsertResource({ ...patient("Plum"), gender: "other" }, "identifier=urn:x|Plum");
  assert.equal(upserted.id, made.id);
  const pages = [];
  for await (const page of plum.searchResourcePages("Patient", "_count=1&_sort=_lastUpdated")) pages.push(page.length);
  assert(pages.length >= 3 && pages.every((length) => length === 1));
  const wrong = { ...patient("Wrong"), gender: "blue" };
  await assert.rejects(plum.createResource(wrong), (error) => error.outcome.issue[0].expression[0] === "Patient.gender");
}

// As a client of OpenID Connect: discovery below the issuer, the key set, the signature by OpenSSL, the claims.
async function knowWho(token) {
  const ask = async (url) => (await fetch(url)).json();
  const found = await ask(`${base}/.well-known/openid-configuration`);
  assert.equal(found.issuer, base);
  const [head, claims, signature] = token.split(".");
  const decoded = (part) => JSON.parse(Buffer.from(part, "base64url"));
  const { alg, kid } = decoded(head);
  assert.deepEqual([alg, found.id_token_signing_alg_values_supported], ["RS256", ["RS256"]]);
  const { keys } = await ask(found.jwks_uri);
  const key = createPublicKey({ key: keys.find((own) => own.kid === kid), format: "jwk" });
  const signed = (text) => verify("sha256", Buffer.from(text), key, Buffer.from(signature, "base64url"));
  assert(signed(`${head}.${claims}`) && !signed(`${head}.${claims}x`));
  const told = decoded(claims);
  assert.deepEqual([told.iss, told.aud, told.nonce, told.sub], [base, "kit", "a nonce", "clients"]);
  assert.equal(told.fhirUser, `${base}/Practitioner/clients`);
  assert(told.exp > Date.now() / 1000 && told.iat <= Date.now() / 1000 + 1);
}

// A person lets a program act: discovery by the client, consent as in a browser, then the client with its token alone.
async function letAppAct() {
  const module = await client("fhir-kit-client");
  const Client = module.default ?? module.Client;
  const staff = new Client({ baseUrl: base, customHeaders: headers });
  const [own, other] = [await staff.create({ resourceType: "Patient", body: patient("Own") }),
    await staff.create({ resourceType: "Patient", body: patient("Other") })];
  for (const one of [own, other]) await staff.create({ resourceType: "Observation", body: observation(one.id, 1) });
  const { authorizeUrl, tokenUrl } = await new Client({ baseUrl: base }).smartAuthMetadata();
  const verifier = randomBytes(32).toString("base64url");
  const asked = new URLSearchParams({
    response_type: "code", client_id: "kit", redirect_uri: "https://kit.example/back", state: "s",
    scope: "openid fhirUser launch/patient patient/*.rs offline_access", nonce: "a nonce", aud: base, code_challenge_method: "S256",
    code_challenge: createHash("sha256").update(verifier).digest("base64url"), chosen: own.id,
  });
  const page = await (await fetch(`${authorizeUrl}?${asked}`, { headers: { cookie } })).text();
  assert.match(page, /A client/);
  const body = new URLSearchParams([...asked, ["csrf", csrf], ["do", "allow"]]);
  const allowed = await fetch(authorizeUrl, { method: "POST", headers: { cookie }, body, redirect: "manual" });
  const back = new URL(allowed.headers.get("location"));
  assert.equal(back.origin + back.pathname, "https://kit.example/back");
  assert.deepEqual([back.searchParams.get("state"), back.searchParams.get("iss")], ["s", base]);
  const ask = async (form) => (await fetch(tokenUrl, { method: "POST", body: new URLSearchParams(form) })).json();
  const form = { grant_type: "authorization_code", code: back.searchParams.get("code"),
    redirect_uri: "https://kit.example/back", client_id: "kit", code_verifier: verifier };
  const first = await ask(form);
  assert.equal(first.patient, own.id);
  await knowWho(first.id_token);
  const told = await ask({ grant_type: "refresh_token", refresh_token: first.refresh_token, client_id: "kit" });
  const app = new Client({ baseUrl: base, bearerToken: told.access_token });
  const seen = await app.search({ resourceType: "Observation" });
  assert.deepEqual(seen.entry.map((entry) => entry.resource.subject.reference), [`Patient/${own.id}`]);
  assert.equal((await app.read({ resourceType: "Patient", id: own.id })).id, own.id);
  const is = (status) => (error) => error.response.status === status;
  await assert.rejects(app.read({ resourceType: "Patient", id: other.id }), is(404));
  await assert.rejects(app.create({ resourceType: "Observation", body: observation(own.id, 2) }), is(403));
  assert.equal((await ask(form)).error, "invalid_grant");
  await assert.rejects(app.read({ resourceType: "Patient", id: own.id }), is(401));
}

await useKit();
await useMedplum();
await letAppAct();
console.log("both clients are content");
