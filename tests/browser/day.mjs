// A day in the practice, driven as its people would drive it: by labels and buttons, not by selectors of ours.
// usage: node day.mjs INPUT.json     (written by tests/tests/system/browser.rs)
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { freshCode } from './totp.mjs';

const input = JSON.parse(readFileSync(process.argv[2]));
const { chromium } = createRequire(join(input.modules, 'x.js'))('playwright-core');

// A program of somebody else's (SMART on FHIR): launched from a chart, it finds the addresses itself, proves itself by PKCE
// and shows what its token opens.
async function startApp() {
  // The practice's certificates are its own authority's.
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
  const app = { clientId: '', token: '', server: '' };
  const waiting = new Map();
  const answer = async (url) => {
    const own = app.url + '/back';
    if (url.pathname === '/launch') {
      app.server = url.searchParams.get('iss');
      const { authorization_endpoint } = await (await fetch(app.server + '/.well-known/smart-configuration')).json();
      const [state, verifier] = [randomBytes(16).toString('hex'), randomBytes(32).toString('base64url')];
      waiting.set(state, verifier);
      const query = new URLSearchParams({ response_type: 'code', client_id: app.clientId, redirect_uri: own, state,
        scope: 'launch patient/*.rs online_access', aud: app.server, launch: url.searchParams.get('launch'),
        code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256' });
      return { status: 302, location: `${authorization_endpoint}?${query}` };
    }
    const verifier = waiting.get(url.searchParams.get('state'));
    if (url.pathname !== '/back' || !verifier) return { status: 404, text: 'nothing here' };
    waiting.delete(url.searchParams.get('state'));
    const { token_endpoint } = await (await fetch(app.server + '/.well-known/smart-configuration')).json();
    const given = await (await fetch(token_endpoint, { method: 'POST', body: new URLSearchParams({
      grant_type: 'authorization_code', code: url.searchParams.get('code'), redirect_uri: own, client_id: app.clientId,
      code_verifier: verifier }) })).json();
    app.token = given.access_token;
    const all = await (await fetch(`${app.server}/Patient`, { headers: { authorization: `Bearer ${app.token}` } })).json();
    const names = all.entry.map((entry) => entry.resource.name[0].family);
    return { status: 200, text: `The app sees ${names.join(', ')} and nobody else` };
  };
  const server = createServer((request, response) => {
    answer(new URL(request.url, app.url)).catch((error) => ({ status: 500, text: String(error) })).then((told) => {
      response.writeHead(told.status, told.location ? { location: told.location } : { 'content-type': 'text/plain' });
      response.end(told.text);
    });
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  app.url = `http://127.0.0.1:${server.address().port}`;
  app.end = () => new Promise((done) => { server.closeAllConnections(); server.close(done); });
  return app;
}
function must(condition, what) { if (!condition) throw new Error(what); }

const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
// Every page that is looked at is also checked against WCAG 2.2 AA.
const axe = readFileSync(join(input.modules, 'axe-core/axe.min.js'), 'utf8');
async function accessible(page, name) {
  // Paper has no contrast of screens.
  if (!name.startsWith('emr-') || name.endsWith('-print')) return;
  await page.evaluate(axe);
  const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
  const found = await page.evaluate((runOnly) => window.axe.run(document, { runOnly }), rules);
  must(found.violations.length === 0, `${name}: ${JSON.stringify(found.violations.map((v) => [v.id, v.nodes[0].html]))}`);
}
let shot = 0;
// What the person saw last stays as a picture when the day goes wrong.
let current;
process.on('uncaughtException', async (error) => {
  if (current) await current.screenshot({ path: join(input.shots, 'failed.png'), fullPage: true }).catch(() => {});
  console.error(error);
  process.exit(1);
});
// A browser of somebody's, watched: what it asks for elsewhere, and what its pages break.
async function watched(user, viewport = { width: 1180, height: 820 }) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  current = page;
  const foreign = [];
  page.on('request', (r) => { if (!r.url().startsWith(user.url) && !r.url().startsWith('data:')) foreign.push(r.url()); });
  const broken = [];
  page.on('console', (m) => { if (m.type() === 'error') broken.push(m.text()); });
  return {
    page,
    look: async (name, shown = page) => {
      await accessible(shown, name);
      await shown.screenshot({ path: join(input.shots, `${String(++shot).padStart(2, '0')}-${name}.png`), fullPage: true });
    },
    end: async () => {
      must(foreign.length === 0, `requests to elsewhere: ${foreign}`);
      const csp = broken.filter((t) => /Content Security Policy|Refused/i.test(t));
      must(csp.length === 0, `the page breaks its own policy: ${csp}`);
      await context.close();
    },
  };
}
async function person(user, path, labels) {
  const own = await watched(user);
  const { page } = own;
  await page.goto(user.url + path);
  for (let tries = 0; tries < 3; tries++) {
    await page.getByLabel(labels.name).fill(user.name);
    await page.getByLabel(labels.password).fill(user.password);
    await page.getByLabel('Code').fill(await freshCode(user));
    await page.getByRole('button', { name: labels.button }).click();
    await page.waitForLoadState();
    if (!page.url().includes(path)) break;
  }
  must(!page.url().includes(path), `${user.name} could not sign in`);
  return own;
}
// A patient logs in: address and password, then the code.
async function patient(user) {
  const own = await watched(user, { width: 820, height: 1180 });
  await own.page.goto(user.url);
  await own.page.waitForURL(/\/login$/);
  await own.look('emr-portal-login');
  await own.page.getByLabel('E-mail').fill(user.name);
  await own.page.getByLabel('Password').fill(user.password);
  await own.page.keyboard.press('Enter');
  await own.page.getByLabel('Code').fill(await freshCode(user));
  await own.look('emr-portal-code');
  await own.page.keyboard.press('Enter');
  await own.page.getByRole('heading', { name: /^Welcome/ }).waitFor();
  return own;
}
const emr = { name: 'User name', password: 'Password', button: 'Log in' };
const con = { name: 'Name', password: 'Password', button: /sign in/i };
async function choose(page, label) {
  const options = await page.getByLabel(label).locator('option').evaluateAll((o) => o.map((x) => x.value).filter(Boolean));
  await page.getByLabel(label).selectOption(options[0]);
}

// The front desk registers a patient and books an appointment.
let { page, look, end } = await person(input.desk, '/login', emr);
await look('emr-schedule');
await page.goto(input.desk.url + '/patients');
await look('emr-patients');
await page.goto(input.desk.url + '/patients/new');
await page.getByLabel('Family name').fill('Okonkwa-Lindqvist');
await page.getByLabel('Given names').fill('Marguerite');
await page.getByLabel('Birth date').fill('1958-11-03');
await page.getByLabel('Sex').selectOption('female');
await page.locator('#phone').fill('+1 555 010 4477');
const number = page.getByRole('group', { name: 'Number 1', exact: true });
await number.getByLabel('What it is').selectOption('MB');
await number.getByLabel(/^Number/).fill('W-7781');
const relative = page.getByRole('group', { name: 'Contact person 1', exact: true });
await relative.getByLabel('What for').selectOption('C');
await relative.getByLabel(/^Name/).fill('Ines Okonkwa');
await relative.getByLabel(/^Relationship/).fill('sister');
await relative.getByLabel(/^Phone/).fill('+1 555 010 9911');
await look('emr-register');
await page.getByRole('button', { name: 'Register' }).click();
await page.waitForURL(/\/patients\/(?!new)[^/]+$/);
const chart = new URL(page.url()).pathname;
must((await page.content()).includes('Okonkwa-Lindqvist'), 'the banner shows the name');
for (const words of ['Insurance member number', 'W-7781', 'Ines Okonkwa (sister), phone +1 555 010 9911']) {
  must((await page.content()).includes(words), `the chart shows ${words}`);
}
await look('emr-chart-desk');
await page.goto(input.desk.url + chart + '/edit');
await page.getByRole('group', { name: 'Contact person 1', exact: true }).getByLabel(/^Phone/).fill('+1 555 010 9912');
await look('emr-registration');
await page.getByRole('button', { name: 'Save' }).click();
await page.waitForURL(input.desk.url + chart);
must((await page.content()).includes('010 9912'), 'a changed row is saved');
await page.goto(input.desk.url + '/schedule/book?patient=' + chart.split('/').pop());
await choose(page, 'Practitioner');
// A weekday: the practice has no hours at the weekend.
const ahead = new Date(Date.now() + 40 * 86400000);
while ([0, 6].includes(ahead.getUTCDay())) ahead.setUTCDate(ahead.getUTCDate() + 1);
const day = ahead.toISOString().slice(0, 10);
await page.getByLabel('Day', { exact: true }).fill(day);
await page.getByLabel(/^Time/).fill('10:20');
await page.getByLabel('Length').selectOption('20');
await page.getByLabel(/^Reason/).fill('First visit');
await look('emr-book');
await page.getByRole('button', { name: 'Book', exact: true }).click();
await page.waitForURL(/\/schedule\?/);
must((await page.content()).includes('Okonkwa-Lindqvist'), 'the day shows the appointment');
await page.goto(input.desk.url + '/schedule/book?patient=' + chart.split('/').pop());
await choose(page, 'Practitioner');
await page.getByLabel('Day', { exact: true }).fill(day);
await page.getByLabel(/^Time/).fill('11:40');
await page.getByLabel('Length').selectOption('20');
await page.getByLabel(/^Reason/).fill('Second look');
await page.getByRole('button', { name: 'Book', exact: true }).click();
await page.waitForURL(/\/schedule\?/);
await look('emr-day');
// In the grid the entry lies at its time: 10:20 is 28 rows of five minutes below 08:00.
await page.goto(`${input.desk.url}/schedule/grid?view=day&day=${day}`);
const entry = page.locator('.appt', { hasText: /10:[23]0 Okonkwa-Lindqvist/ });
const row = await entry.evaluate((e) => getComputedStyle(e).gridRowStart);
must(row === '29', `the entry lies in row ${row}`);
await look('emr-grid');
// Moved by the keyboard alone.
await entry.focus();
await page.keyboard.press('Alt+ArrowDown');
await page.keyboard.press('Alt+ArrowDown');
await page.keyboard.press('Enter');
await page.locator('.appt', { hasText: '10:30 Okonkwa-Lindqvist' }).waitFor();
// Keys speak to the entry that has the focus: Enter on another one opens that, and moves nothing.
const other = page.locator('.appt', { hasText: '11:40 Okonkwa-Lindqvist' });
await entry.focus();
await page.keyboard.press('Alt+ArrowDown');
await other.focus();
must(await page.locator('.ghost').count() === 0, 'an entry that is left stays where it was');
await page.keyboard.press('Enter');
await page.waitForURL(/\/schedule\/[^?/]+$/);
must((await page.content()).includes('11:40'), 'the other one is opened');
await page.goto(`${input.desk.url}/schedule/grid?view=day&day=${day}`);
await page.locator('.appt', { hasText: '10:30 Okonkwa-Lindqvist' }).waitFor();
await page.goto(`${input.desk.url}/schedule/grid?view=week&day=${day}`);
await look('emr-week');
await page.goto(input.desk.url + '/schedule/hours'); await look('emr-hours');
await end();

// The administrator writes a text, the desk has it signed.
({ page, look, end } = await person(input.admin, '/login', emr));
await page.goto(input.admin.url + '/consents/new');
await page.getByLabel('Title').fill('Photographs');
await page.getByLabel('Text', { exact: true }).fill('I agree to photographs of my skin for my record.');
await page.getByRole('button', { name: 'Save' }).click();
await page.waitForURL(/\/consents$/);
await look('emr-consent-texts');
await end();
({ page, look, end } = await person(input.desk, '/login', emr));
await page.goto(input.desk.url + chart + '/consents');
await page.getByRole('link', { name: 'Show and sign' }).first().click();
const pad = await page.locator('#pad').boundingBox();
await page.mouse.move(pad.x + 40, pad.y + 60);
await page.mouse.down();
for (let n = 1; n < 16; n++) await page.mouse.move(pad.x + 40 + n * 20, pad.y + 60 + (n % 2) * 60);
await page.mouse.up();
await look('emr-consent');
await page.getByRole('button', { name: 'I agree and sign' }).click();
await page.waitForURL(/\/consents\/[0-9a-f-]{36}$/);
must(await page.locator('svg.signature polyline').count() === 1, 'the signature is shown as it was drawn');
await look('emr-consent-signed');
await end();

// The clinician searches while typing, writes a note, signs it, uploads a document.
({ page, look, end } = await person(input.doctor, '/login', emr));
await page.goto(input.doctor.url + '/patients');
await page.locator('input[type=search]').first().pressSequentially('Okonkwa', { delay: 30 });
await page.getByRole('link', { name: /Okonkwa-Lindqvist/ }).first().click();
await page.waitForURL(/\/patients\/(?!new)[^/]+$/);
await page.goto(input.doctor.url + chart + '/allergies/new');
await page.getByLabel('Substance').fill('Penicillin');
await choose(page, 'Risk');
await look('emr-allergy');
await page.getByRole('button', { name: 'Save' }).click();
await page.waitForURL(new RegExp(chart + '(#.*)?$'));
must((await page.content()).includes('Penicillin'), 'the banner shows the allergy');
await page.goto(input.doctor.url + chart + '/encounters/new');
await page.getByLabel('Reason').fill('Cough for two weeks');
await page.getByRole('button', { name: 'Start' }).click();
await page.waitForURL(/\/encounters\/(?!new)[^/]+$/);
await page.locator('textarea').first().fill('Cough since two weeks, no fever. Lungs clear. <script>alert(1)</script> Review in ten days.');
await look('emr-encounter');
await page.getByRole('button', { name: 'Save as draft' }).first().click();
await page.waitForURL(/\/notes\/[^/]+$/);
await look('emr-note');
await page.getByRole('button', { name: 'Save and sign' }).click();
await page.waitForURL(/\/encounters\/(?!new)[^/]+$/);
must((await page.content()).includes('no fever'), 'the signed note is shown');
await look('emr-signed');
// A template becomes a form that is saved while it is written, calculates and is signed.
await page.goto(input.doctor.url + '/templates/new');
await page.getByLabel('Title').fill('Check-up');
await look('emr-template');
await page.getByRole('button', { name: 'Save' }).click();
await page.waitForURL(/\/templates$/);
await page.goto(input.doctor.url + chart + '/forms/new');
await page.getByRole('button', { name: 'Begin Check-up' }).click();
await page.waitForURL(/\/forms\/[0-9a-f-]{36}$/);
must(!(await page.getByLabel('Pack years').isVisible()), 'what is not asked is hidden');
await page.getByLabel('Weight in kg').fill('80');
await page.getByLabel('Height in cm').fill('200');
await page.getByLabel('Reason for the visit').fill('Cough');
await page.getByLabel('yes', { exact: true }).check();
must(await page.getByLabel('Pack years').isVisible(), 'what is asked is shown');
await page.waitForFunction(() => document.querySelector('[name="a.bmi"]').value === '20.0');
await look('emr-form');
await page.getByRole('button', { name: 'Save and sign' }).click();
await page.getByText('Signed by').waitFor();
await look('emr-form-signed');
// A questionnaire of another program: sections in sections, conditions, a choice of codes, a quantity with its unit.
const put = (body) => page.evaluate(async (text) => {
  const answer = await fetch('/fhir/R4/Questionnaire', { method: 'POST', body: text,
    headers: { 'content-type': 'application/fhir+json', 'x-csrf-token': document.body.dataset.csrf } });
  return answer.status;
}, JSON.stringify({ resourceType: 'Questionnaire', status: 'active', ...body }));
const codes = ['Red', 'Green'].map((display) => ({ valueCoding: { system: 'urn:colours', code: display[0], display } }));
must(await put({ title: 'Intake', item: [
  { linkId: '1', type: 'group', text: 'About you', item: [
    { linkId: '1.1', type: 'boolean', text: 'Do you smoke?', required: true },
    { linkId: '1.2', type: 'integer', text: 'Cigarettes a day', enableWhen: [{ question: '1.1', operator: '=', answerBoolean: true }] },
    { linkId: '1.3', type: 'display', text: 'That is much.', enableWhen: [{ question: '1.2', operator: '>=', answerInteger: 20 }] },
    { linkId: '1.4', type: 'group', text: 'Taste', item: [
      { linkId: '1.4.1', type: 'choice', text: 'Colour', answerOption: codes },
      { linkId: '1.4.2', type: 'open-choice', text: 'Pet', answerOption: [{ valueString: 'Cat' }, { valueString: 'Dog' }] },
      { linkId: '1.4.3', type: 'open-choice', repeats: true, text: 'Sports', answerOption: [{ valueString: 'Running' }, { valueString: 'Chess' }] }] }] },
  { linkId: '2', type: 'group', repeats: true, text: 'Visit elsewhere', item: [
    { linkId: '2.1', type: 'dateTime', text: 'When it was' },
    { linkId: '2.2', type: 'quantity', text: 'Dose' }] },
  { linkId: '3', type: 'time', text: 'Gets up at', item: [{ linkId: '3.1', type: 'string', text: 'Why then?' }] }] }) === 201, 'it is kept');
must(await put({ title: 'Pictures', item: [{ linkId: '1', type: 'attachment', text: 'Your skin' }] }) === 201, 'that one, too');
await page.goto(input.doctor.url + '/templates');
await page.getByText('“Your skin” asks for an answer of type attachment').waitFor();
await look('emr-templates');
await page.getByRole('link', { name: 'Intake' }).click();
await page.getByText('Another program made this template').waitFor();
await look('emr-template-foreign');
await page.goto(input.doctor.url + chart + '/forms/new');
await page.getByRole('button', { name: 'Begin Intake' }).click();
await page.waitForURL(/\/forms\/[0-9a-f-]{36}$/);
must(!(await page.getByLabel('Cigarettes a day').isVisible()), 'not asked yet');
must(!(await page.getByLabel('Why then?').isVisible()), 'asked below an answer alone');
await page.getByRole('group', { name: /^Do you smoke/ }).getByLabel('Yes').check();
await page.getByLabel('Cigarettes a day').fill('25');
must(await page.getByText('That is much.').isVisible(), 'a number that is as large');
await page.getByLabel('Red').check();
await page.getByLabel(/^Pet/).fill('Dog');
await page.getByLabel('Chess').check();
await page.getByLabel('Another answer').fill('Climbing');
await page.getByLabel(/^When it was/).fill('2026-07-01T10:00');
await page.getByLabel(/^Dose/).fill('2,5');
await page.getByLabel('Unit of Dose').fill('mg');
await page.getByLabel(/^Gets up at/).fill('06:30');
await page.getByLabel('Why then?').fill('The dog');
await page.setViewportSize({ width: 320, height: 800 });
await look('emr-form-foreign-narrow');
must(await page.evaluate(() => document.documentElement.scrollWidth <= 320), 'nothing is wider than the screen');
await page.setViewportSize({ width: 1180, height: 820 });
await look('emr-form-foreign');
await page.getByRole('button', { name: 'Add another: Visit elsewhere' }).click();
await page.locator('[name="a.2~2e1.1"]').waitFor();
await page.getByRole('button', { name: 'Save and sign' }).click();
await page.getByText('Signed by').waitFor();
for (const words of ['2026-07-01 10:00', '2.5 mg', 'Chess, Climbing', 'The dog', 'Red']) {
  must((await page.content()).includes(words), `the signed form says ${words}`);
}
await look('emr-form-foreign-signed');
await page.goto(input.doctor.url + chart + '/vitals');
await page.getByLabel('Systolic, mmHg').fill('142');
await page.getByLabel('Diastolic, mmHg').fill('86');
await page.getByRole('button', { name: 'Save' }).click();
await page.locator('svg.curve').first().waitFor();
await look('emr-vitals');
await page.goto(input.doctor.url + chart + '/timeline?q=cough');
must((await page.content()).includes('no fever'), 'the search finds words of a note');
await look('emr-timeline');
await page.goto(input.doctor.url + chart + '/documents/new');
await page.locator('input[type=file]').setInputFiles({ name: 'letter.txt', mimeType: 'text/plain', buffer: Buffer.from('Dear colleague\n') });
await look('emr-upload');
const title = page.getByLabel(/Title|Description/).first();
if (await title.count()) await title.fill('Letter');
await page.getByRole('button', { name: 'Upload' }).click();
await page.waitForURL(new RegExp(chart + '(#.*)?$'));
await look('emr-chart');
await page.emulateMedia({ media: 'print' });
await look('emr-chart-print');
await end();

// The administrator registers a program, the clinician starts it from the chart and lets it act, and ends it again.
const app = await startApp();
({ page, look, end } = await person(input.admin, '/login', emr));
await page.goto(input.admin.url + '/users');
await page.getByRole('link', { name: 'Apps' }).click();
await page.getByRole('link', { name: 'Register an app' }).click();
await page.getByLabel('Name').fill('Growth charts');
await page.getByLabel('Kind').selectOption('public');
await page.getByLabel(/^Answers go to/).fill(app.url + '/back');
await page.getByLabel(/^Starts from a chart at/).fill(app.url + '/launch');
await look('emr-app-register');
await page.getByRole('button', { name: 'Register' }).click();
app.clientId = await page.locator('dt:has-text("Client id") + dd').innerText();
await look('emr-app-registered');
await end();
({ page, look, end } = await person(input.doctor, '/login', emr));
await page.goto(input.doctor.url + chart);
await page.getByRole('link', { name: 'Apps' }).click();
await look('emr-apps');
const opened = page.context().waitForEvent('page');
await page.getByRole('button', { name: 'Open Growth charts' }).click();
const popup = await opened;
popup.setDefaultTimeout(20000);
await popup.getByRole('heading', { name: 'Let this app act for you?' }).waitFor();
must((await popup.content()).includes('Okonkwa-Lindqvist'), 'the page says for whom');
await look('emr-app-consent', popup);
await popup.getByRole('button', { name: 'Allow' }).press('Enter');
await popup.getByText('The app sees Okonkwa-Lindqvist and nobody else').waitFor();
await page.goto(input.doctor.url + '/account/apps');
await look('emr-account-apps');
await page.getByRole('button', { name: 'End Growth charts' }).click();
await page.getByText('No app acts for you').waitFor();
const refused = await fetch(app.server + '/Patient', { headers: { authorization: `Bearer ${app.token}` } });
must(refused.status === 401, `a token that was ended is answered ${refused.status}`);
await app.end();
await end();

// A patient looks at the own record, writes, and gets an answer and a form.
({ page, look, end } = await patient(input.patient));
await look('emr-portal-start');
await page.keyboard.press('Tab');
must(await page.evaluate(() => document.activeElement.className === 'skip'), 'the first stop of the keyboard leads past the menu');
for (const [name, heading, shot] of [['My record', 'My record', 'record'], ['Documents', 'Documents', 'documents'],
  ['Appointments', 'Appointments', 'appointments'], ['Forms', 'Forms', 'forms'], ['Who looked', 'Who looked at my record', 'access']]) {
  await page.getByRole('navigation').getByRole('link', { name }).click();
  await page.getByRole('heading', { name: heading, level: 1 }).waitFor();
  await look(`emr-portal-${shot}`);
}
await page.getByRole('navigation').getByRole('link', { name: 'Documents' }).click();
const file = page.locator('a[href$="/file"]').first();
if (await file.count()) {
  const [download] = await Promise.all([page.waitForEvent('download'), file.click()]);
  must((await download.failure()) === null, 'a document is taken home');
}
await page.goto(input.patient.url + '/messages');
await page.getByLabel('Your message').fill('May I take the tablets in the evening?');
await page.getByRole('button', { name: 'Send' }).click();
await page.getByText('May I take the tablets in the evening?').waitFor();
await look('emr-portal-messages');
const atHome = { page, look, end };
({ page, look, end } = await person(input.doctor, '/login', emr));
await page.goto(input.doctor.url + '/tasks?show=all');
await page.getByRole('link', { name: 'A patient wrote a message' }).click();
await page.getByRole('link', { name: 'Read and answer the message' }).click();
await page.getByLabel('Message to the patient').fill('Yes, with a glass of water.');
await look('emr-messages');
await page.getByRole('button', { name: 'Send to the patient' }).click();
await page.getByText('Yes, with a glass of water.').waitFor();
await page.goto(page.url().replace('/messages', '/portal'));
await look('emr-portal-desk');
await page.getByRole('button', { name: 'Give Check-up' }).click();
await page.getByText('with the patient').waitFor();
await end();
({ page, look, end } = atHome);
current = page;
await page.goto(input.patient.url + '/messages');
await page.getByText('Yes, with a glass of water.').waitFor();
await page.getByRole('navigation').getByRole('link', { name: 'Forms' }).click();
await page.getByRole('link', { name: 'Check-up' }).click();
await page.getByLabel('Weight in kg').fill('70');
await page.getByLabel('Height in cm').fill('170');
await page.getByLabel('Reason for the visit').fill('The tablets');
const no = page.getByLabel('no', { exact: true });
if (await no.count()) await no.first().check();
await look('emr-portal-form');
await page.getByRole('button', { name: 'Send to the practice' }).click();
await page.getByText('sent', { exact: true }).waitFor();
await page.getByRole('navigation').getByRole('link', { name: 'Who looked' }).click();
await page.getByRole('row', { name: /Dana Doctor/ }).first().waitFor();
await look('emr-portal-looked');
await page.getByRole('button', { name: 'Log out' }).click();
await page.waitForURL(/\/login$/);
await end();

({ page, look, end } = await person(input.admin, '/login', emr));
await page.goto(input.admin.url + '/audit'); await look('emr-audit');
await page.goto(input.admin.url + '/users'); await look('emr-users');
await end();

// Practice IT takes a backup from the console and follows it; the owner opens a report.
({ page, look, end } = await person(input.it, '/sign-in', con));
await look('console-posture');
await page.getByRole('button', { name: /backup/i }).first().click();
await page.waitForFunction(() => /Backup \d+/.test(document.body.innerText) && /Done/.test(document.body.innerText), null, { timeout: 90000 });
await look('console-backup');
for (const path of ['snapshots', 'reports', 'hosts', 'alerts', 'record', 'accounts']) {
  const answer = await page.goto(`${input.it.url}/${path}`);
  if (answer.status() === 200) await look(`console-${path}`);
}
await end();
({ page, look, end } = await person(input.owner, '/sign-in', con));
await page.goto(input.owner.url + '/deletions');
await page.getByRole('button', { name: 'Make a new plan now' }).click();
await page.getByText('would go').waitFor({ timeout: 90000 });
await page.goto(input.owner.url + '/deletions');
must(/What is kept/.test(await page.locator('main').innerText()), 'the rules are shown');
await look('console-deletions');
await page.goto(input.owner.url + '/reports');
await page.locator('a[href^="/reports/"]').first().click();
await page.waitForURL(/\/reports\/.+/);
must(/pass/i.test(await page.locator('main').innerText()), 'the report says pass');
await look('console-report');
await end();
({ page, look, end } = await person(input.hands, '/sign-in', con));
await look('console-data-center');
must((await page.goto(input.hands.url + '/reports')).status() === 403, 'data-center staff see no report');
await end();

const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1180, height: 820 } });
const wall = await context.newPage();
await wall.goto(input.health);
await wall.screenshot({ path: join(input.shots, `${String(++shot).padStart(2, '0')}-health.png`), fullPage: true });
await browser.close();
console.log('the day is over');
