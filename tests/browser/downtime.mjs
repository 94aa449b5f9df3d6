// The office without a connection: what is typed is kept and saved once, and the downtime pack opens without a network.
// usage: node downtime.mjs INPUT.json     (written by tests/tests/system/downtime.rs)
// It talks to the test by lines: "stop" and "start" ask for the server to be stopped and started.
import { readFileSync } from 'node:fs';
import { ask, browser, follow, input, login, look, must } from './clinic.mjs';

// The administrator makes a password and lets a computer in.
let page = await login(input.admin);
await page.goto(input.url + '/practice');
await look(page, 'practice');
await page.goto(input.url + '/practice/downtime');
await look(page, 'settings');
await page.getByRole('button', { name: 'Make a new password' }).click();
const password = (await page.locator('code.copy').first().innerText()).trim();
must(/^([a-z2-9]{5}-){3}[a-z2-9]{5}$/.test(password), 'a password that nobody chose');
await page.goto(input.url + '/practice/downtime');
must(!(await page.content()).includes(password), 'it is shown once');
await page.getByLabel('Name of the computer').fill('Reception');
await page.getByRole('button', { name: 'Let it pull the pack' }).click();
const line = await page.locator('code.copy').first().innerText();
const token = line.match(/Bearer ([^"]+)"/)[1];
await look(page, 'computer');
for (const path of ['/practice/import', '/practice/export']) {
  await page.goto(input.url + path);
  await look(page, path.split('/').pop());
}
await page.goto(input.url + '/practice/import');
await page.getByLabel('Table', { exact: true }).setInputFiles({ name: 'patients.csv', mimeType: 'text/csv',
  buffer: Buffer.from('number,family,given,birth,gender\n1,Abel,Jo,1960-05-06,f\n2,Brandt,Max,1.1.1970,m\n') });
await page.getByRole('button', { name: 'Look only' }).click();
await page.getByText('Nothing was changed').waitFor();
await look(page, 'import-looked');
await page.context().close();

// The office computer pulls it; then there is no network at all.
must((await ask(`pull ${token}`)) === 'pulled', 'the pack was pulled');
const office = await browser.newContext({ offline: true, viewport: { width: 1180, height: 820 }, acceptDownloads: true });
page = follow(await office.newPage());
const asked = [];
page.on('request', (request) => { if (!/^(file|data|blob):/.test(request.url())) asked.push(request.url()); });
const broken = [];
page.on('console', (message) => { if (message.type() === 'error') broken.push(message.text()); });
await page.goto('file://' + input.pack);
must(!(await page.content()).includes(input.patient), 'nothing of a patient is shown before the password');
must(/old|Just taken/.test(await page.locator('#age').innerText()), 'its age is shown');
must(/ \d\d:\d\d \(UTC\)$/.test(await page.locator('#taken').innerText()), 'its time is told by the clock of the practice');
await look(page, 'pack-closed');
await page.getByLabel('Password').fill('aaaaa-bbbbb-ccccc-ddddd');
await page.getByRole('button', { name: 'Open' }).click();
await page.getByText('This is not the password of this pack').waitFor();
await look(page, 'pack-wrong');
await page.getByLabel('Password').fill(password.toUpperCase());
await page.getByRole('button', { name: 'Open' }).click();
await page.getByRole('heading', { name: 'Schedule' }).waitFor();
const content = await page.locator('#content').innerText();
for (const word of [input.patient, input.phone, 'Penicillin', 'Lisinopril 10 mg', 'Hypertension', '10:20']) {
  must(content.includes(word), `the pack shows ${word}`);
}
await look(page, 'pack-open');
await page.getByLabel('Find a patient').fill('nobody at all');
must(await page.locator('article:visible').count() === 0, 'the search narrows the list');
await page.getByLabel('Find a patient').fill(input.patient.slice(0, 4));
must(await page.locator('article:visible').count() >= 1, 'the search finds');
const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Save as PDF' }).click()]);
const pdf = readFileSync(await download.path());
must(pdf.subarray(0, 5).toString() === '%PDF-', 'a PDF is in it');
await download.saveAs(input.pdf);
must(asked.length === 0, `the pack asks nobody: ${asked}`);
must(broken.length === 0, `the pack keeps its own policy: ${broken}`);
// A pack that says another age than it has does not open.
await page.goto('file://' + input.forged);
await page.getByLabel('Password').fill(password);
await page.getByRole('button', { name: 'Open' }).click();
await page.getByText('This is not the password of this pack').waitFor();
await office.close();

// A note is typed while the server goes away; it is kept, and saved once when the server is back.
page = await login(input.doctor);
await page.goto(`${input.url}/patients/${input.id}/encounters/new`);
await page.getByLabel('Reason').fill('Cough');
await page.getByRole('button', { name: 'Start' }).click();
await page.waitForURL(/\/encounters\/(?!new)[^/]+$/);
const encounter = page.url();
const words = 'Typed while the line was down.';
await page.locator('textarea').first().fill(words);
await ask('stop');
await page.getByRole('button', { name: 'Save as draft' }).first().click();
await page.getByText('Connection lost').waitFor();
must(await page.locator('textarea').first().inputValue() === words, 'what was typed is kept');
await look(page, 'lost');
// Pressed again in impatience.
await page.getByRole('button', { name: 'Save as draft' }).first().click();
await ask('start');
await page.waitForURL(/\/notes\/[^/]+$/);
await page.goto(encounter);
must((await page.content()).split(words).length - 1 === 1, 'it is saved exactly once');
// Two people change a registration.
const [one, two] = [page, await page.context().newPage()];
follow(two);
for (const tab of [one, two]) await tab.goto(`${input.url}/patients/${input.id}/edit`);
await one.locator('#phone').fill('+1 555 010 9999');
await one.getByRole('button', { name: 'Save' }).click();
await one.waitForURL(/\/patients\/[^/]+$/);
await two.locator('#phone').fill('+1 555 010 8888');
await two.getByLabel(/^City/).fill('Elm Town');
await two.getByRole('button', { name: 'Save' }).click();
await two.getByRole('heading', { name: 'Changed by two people' }).waitFor();
await look(two, 'merge');
await two.getByLabel(/Saved meanwhile: \+1 555 010 9999/).check();
await two.getByRole('button', { name: 'Save what is chosen' }).click();
await two.waitForURL(/\/patients\/[^/]+$/);
const chart = await two.content();
must(chart.includes('+1 555 010 9999') && chart.includes('Elm Town'), 'both changes are kept');
await look(two, 'chart');
// Who pays, with the card.
await two.getByRole('link', { name: 'Coverage' }).click();
const dot = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');
await two.getByLabel('Insurance').fill('Elm Health');
await two.getByLabel('Member number').fill('A-17');
for (const side of ['Front', 'Back']) {
  await two.getByLabel(`${side} of the card`).first().setInputFiles({ name: `${side}.png`, mimeType: 'image/png', buffer: dot });
}
await two.getByRole('button', { name: 'Save' }).click();
await two.getByAltText('Front of the card of Elm Health').waitFor();
await look(two, 'coverage');
await two.goto(`${input.url}/patients/${input.id}`);
// The whole record of the patient, to take along.
const [archive] = await Promise.all([two.waitForEvent('download'), two.getByRole('link', { name: 'Export' }).click()]);
must(readFileSync(await archive.path()).subarray(0, 2).toString() === 'PK', 'an archive');
await browser.close();
console.log('the line is back');
process.exit(0);
