// The screen that locks: what was on it is out of reach until the password is given, by no key, on no paper and in no tab.
// usage: node lock.mjs INPUT.json     (written by tests/tests/system/lock_screen.rs)
import { browser, follow, input, login, look, must } from './clinic.mjs';

const desk = await login(input.desk);
const family = 'Okonkwa-Lindqvist';
const made = await desk.evaluate(async (family) => {
  const answer = await fetch('/fhir/R4/Patient', { method: 'POST', body: JSON.stringify({ resourceType: 'Patient', name: [{ family }] }),
    headers: { 'content-type': 'application/fhir+json', 'x-csrf-token': document.body.dataset.csrf } });
  return { status: answer.status, id: (await answer.json()).id };
}, family);
must(made.status === 201, `a patient is registered: ${made.status}`);
await desk.context().close();
const chart = `${input.url}/patients/${made.id}`;

const page = await login(input.doctor);
const context = page.context();
const tab = async () => { const opened = await context.newPage(); opened.setDefaultTimeout(20000); return opened; };
const [reading, writing] = [await tab(), await tab()];
follow(page);
await page.clock.install({ time: Date.now() });
const cover = (of) => of.locator('.cover');
const idle = async () => { await page.clock.fastForward('10:05'); await cover(page).waitFor(); };
const unlock = async (password) => {
  await page.getByLabel('Password').fill(password);
  await page.keyboard.press('Enter');
};
// What anybody can read: on the screen, on paper, in the title.
async function nothingToRead(of, name) {
  for (const media of ['screen', 'print']) {
    await of.emulateMedia({ media });
    const words = await of.evaluate(() => `${document.title} ${document.body.innerText}`);
    must(!words.includes(family) && !words.includes('Dr. Kept'), `${name}, ${media}: ${words}`);
    must(!(await of.locator('main').first().isVisible()) || /Locked for/.test(words), `${name}, ${media}: the page is seen`);
  }
  await of.emulateMedia({ media: 'screen' });
}

await page.goto(chart + '/referrals/new');
await page.getByLabel('To', { exact: true }).fill('Dr. Kept');
await reading.goto(chart);
await reading.goto(chart + '/timeline');
await writing.goto(chart + '/problems/new');
await writing.getByLabel('Problem').first().fill('Typed in another tab');
await idle();
await look(page, 'cover');
must(await page.locator('#cover-password').evaluate((field) => field === document.activeElement), 'the password is asked for');
for (const key of ['Escape', 'Escape', 'Escape', 'Tab', 'Tab', 'Tab', 'Tab', 'Escape', 'Escape']) {
  await page.keyboard.press(key);
  must(await cover(page).count() === 1 && await cover(page).isVisible(), `${key} takes the cover away`);
  const where = await page.evaluate(() => document.activeElement.closest('.cover') ? 'cover' : document.activeElement.tagName);
  must(['cover', 'BODY'].includes(where), `${key} leads to ${where}`);
}
await page.mouse.click(400, 200);
await page.keyboard.type('typed blindly');
await nothingToRead(page, 'the locked page');
await page.waitForTimeout(1500);
must(await cover(page).count() === 1, 'the cover stays');
const locked = (of) => of.getByRole('heading', { name: 'Screen locked' });
await locked(reading).waitFor();
await locked(writing).waitFor();
await nothingToRead(reading, 'another tab');
await nothingToRead(writing, 'another tab with typed text');
await reading.goBack();
await nothingToRead(reading, 'the page before');
const fresh = await (await context.request.get(chart)).text();
must(fresh.includes('Locked for') && !fresh.includes(family), 'the server gives nothing either');
await page.setViewportSize({ width: 320, height: 700 });
must(await page.evaluate(() => document.documentElement.scrollWidth) <= 320, 'the cover fits a narrow screen');
await look(page, 'cover-320');
await page.setViewportSize({ width: 1180, height: 820 });

await unlock('a guess');
await page.getByText('The password is not right').waitFor();
await nothingToRead(page, 'after a wrong password');
await unlock(input.doctor.password);
await cover(page).waitFor({ state: 'detached' });
must(await page.getByLabel('To', { exact: true }).inputValue() === 'Dr. Kept', 'what was typed is there, and nothing else');
await cover(writing).waitFor({ state: 'detached' });
must(await writing.getByLabel('Problem').first().inputValue() === 'Typed in another tab', 'and in the other tab');
// It locks and unlocks again, also by the button in another tab.
await reading.goto(input.url + '/patients');
await reading.getByRole('button', { name: 'Lock' }).click();
await cover(page).waitFor();
await nothingToRead(page, 'locked in another tab');
await unlock(input.doctor.password);
await cover(page).waitFor({ state: 'detached' });
await idle();
await nothingToRead(page, 'locked again');
await unlock(input.doctor.password);
await cover(page).waitFor({ state: 'detached' });
await page.getByLabel('For', { exact: true }).fill('Chest pain');
await page.getByRole('button', { name: 'Save the letter' }).click();
await page.waitForURL(/referrals\/(?!new)/);
must((await page.content()).includes('Dr. Kept'), 'the letter is saved');

// A page with nothing typed is left at once.
await writing.close({ runBeforeUnload: false });
await page.goto(chart);
await page.clock.fastForward('10:05');
await page.waitForURL(/\/unlock/);
must(!(await page.content()).includes(family), 'nothing of it is there');
await unlock(input.doctor.password);
await page.waitForURL(chart);

// A file that is sent after the server locked is not lost.
await page.goto(chart + '/documents/new');
await page.getByLabel('Description').fill('Scan of today');
await page.locator('#file').setInputFiles({ name: 'scan.txt', mimeType: 'text/plain', buffer: Buffer.from('important') });
const csrf = await page.evaluate(() => document.body.dataset.csrf);
await context.request.post(input.url + '/lock', { headers: { 'x-csrf-token': csrf, 'hx-request': 'true' } });
await page.getByRole('button', { name: 'Upload' }).click();
await cover(page).waitFor();
await nothingToRead(page, 'before the file is sent');
await unlock(input.doctor.password);
await page.waitForURL(chart);
must((await page.content()).includes('Scan of today'), 'the file is there');
await browser.close();
console.log('the screen stayed locked');
