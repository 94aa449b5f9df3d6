// A mother acts for her two children: the desk lets her, she sets up her account, and every page says for whom she is there.
// usage: node proxies.mjs INPUT.json     (written by tests/tests/system/proxies.rs)
import { browser, follow, input, look, login, must, visitor } from './clinic.mjs';
import { freshCode } from './totp.mjs';

const desk = await login(input.desk);
async function register(given, birth) {
  await desk.goto(input.url + '/patients/new');
  await desk.getByLabel('Family name').fill('Vogel');
  await desk.getByLabel('Given name').fill(given);
  await desk.getByLabel('Birth date').fill(birth);
  await desk.getByLabel('Sex').selectOption('female');
  await desk.getByRole('button', { name: /Register/ }).click();
  await desk.waitForURL(/\/patients\/[0-9a-f-]{36}$/);
  return new URL(desk.url()).pathname;
}
const [lena, tom] = [await register('Lena', '2018-03-04'), await register('Tom', '2020-05-06')];

async function letAct(chart, scope) {
  await desk.goto(`${input.url}${chart}/portal`);
  await desk.getByText('Let somebody act for the patient').click();
  const form = desk.locator('form[action$="/portal/people"]');
  await form.getByLabel('Given name').fill('Eva');
  await form.getByLabel('Family name').fill('Vogel');
  await form.getByLabel('Birth date of this person').fill('1990-02-03');
  await form.getByLabel('E-mail of this person').fill('eva@example.org');
  await form.getByLabel('Relation to the patient').selectOption('mother');
  await form.getByLabel('Sees').selectOption(scope);
  return form;
}
// The administrator has patients asked for a consent in the portal, and sees who is logged in.
const admin = await login(input.admin);
async function write(title, governs) {
  await admin.goto(input.url + '/consents/new');
  await admin.getByLabel('Title').fill(title);
  await admin.getByLabel('Text', { exact: true }).fill(`I agree: ${title}.`);
  await admin.getByLabel('Governs', { exact: true }).selectOption(governs);
  await admin.getByLabel('What it governs').selectOption('no');
  await admin.getByLabel('Ask patients for it in the portal').check();
  await look(admin, 'text');
  await admin.getByRole('button', { name: 'Save' }).click();
  await admin.waitForURL(/\/consents$/);
}
await write('Photographs', 'none');
await write('Sharing', 'sharing');
await look(admin, 'texts');
await admin.goto(input.url + '/users');
await admin.locator('summary').nth(1).click();
await look(admin, 'users');
await admin.goto(input.url + '/users/sessions');
must(await admin.getByRole('button', { name: /^End session of/ }).count() === 1, 'the desk is logged in too');
await look(admin, 'sessions');

follow(desk);
let form = await letAct(lena, 'all');
must((await form.getByLabel('Last day').inputValue()) === '2036-03-03', 'it ends before the 18th birthday');
await look(desk, 'desk');
await form.getByRole('button', { name: 'Let this person act' }).click();
const link = await desk.locator('code.copy').innerText();
must(link.startsWith(input.portal + '/invite/'), link);

// She sets up her account with an authenticator: this clinic sends no mail.
const page = await visitor();
await page.goto(link);
const eva = { name: 'eva', secret: (await page.locator('.enrol code').innerText()).trim() };
await page.getByLabel('Your birth date').fill('1990-02-03');
await page.getByLabel('Password', { exact: true }).fill('four words of hers');
await page.getByLabel('Password again').fill('four words of hers');
await page.getByLabel('Code').fill(await freshCode(eva));
await look(page, 'invitation');
await page.getByRole('button', { name: 'Open my account' }).click();
await page.waitForURL(/\/login$/);
await page.getByLabel('E-mail').fill('eva@example.org');
await page.getByLabel('Password').fill('four words of hers');
await page.getByRole('button', { name: 'Continue' }).click();
await page.getByLabel('Code').fill(await freshCode(eva));
await page.getByRole('button', { name: 'Log in' }).click();
await page.getByText('You act for Lena Vogel, born 4 March 2018').waitFor();
await look(page, 'start');
for (const name of ['Record', 'Documents', 'Appointments', 'Forms', 'Consents', 'Messages', 'Who looked']) {
  await page.getByRole('navigation').getByRole('link', { name, exact: true }).click();
  await page.getByText('You act for Lena Vogel').waitFor();
  await look(page, name.toLowerCase().replace(' ', '-'));
}

// She signs what is asked, as the mother, and refuses what she does not want; the desk sees both.
async function decide(title, button) {
  await page.goto(input.portal + '/consents');
  await page.getByRole('link', { name: `Read and decide: ${title}` }).click();
  await page.getByText('You sign as Eva Vogel (mother), for Lena Vogel').waitFor();
  const pad = await page.locator('#pad').boundingBox();
  await page.mouse.move(pad.x + 30, pad.y + 40);
  await page.mouse.down();
  for (let n = 1; n < 16; n++) await page.mouse.move(pad.x + 30 + n * 12, pad.y + 40 + (n % 2) * 40);
  await page.mouse.up();
  await look(page, 'consent');
  await page.getByRole('button', { name: button }).click();
  await page.waitForURL(/\/consents\/[0-9a-f-]{36}$/);
  must(await page.locator('svg.signature polyline').count() === 1, 'the signature is shown as it was drawn');
  await look(page, 'signed');
}
await decide('Photographs', 'I agree and sign');
await decide('Sharing', 'I do not agree, and sign that');
await page.getByText('Not agreed to.').waitFor();
await page.goto(input.portal + '/consents');
await look(page, 'decided');
follow(desk);
await desk.goto(`${input.url}${lena}/consents`);
await desk.getByText('not permitted').waitFor();
await look(desk, 'consents');
await desk.getByRole('link', { name: 'Photographs', exact: true }).click();
await desk.getByText('Eva Vogel, who acts for the patient in the portal as mother').waitFor();
await look(desk, 'what-was-signed');
follow(page);

// The second child, for appointments: no invitation is needed any more.
follow(desk);
form = await letAct(tom, 'appointments');
await form.getByRole('button', { name: 'Let this person act' }).click();
await desk.getByText('eva@example.org · appointments only').waitFor();
await look(desk, 'granted');
follow(page);
const stale = await page.context().newPage();
await stale.goto(input.portal + '/messages');
await stale.getByLabel('Your message').fill('Lena has a fever');
await page.getByRole('link', { name: 'Switch person' }).click();
await page.getByRole('heading', { name: 'For whom are you here?' }).waitFor();
await look(page, 'people');
await page.getByRole('button', { name: 'Choose Tom Vogel' }).press('Enter');
await page.getByText('You act for Tom Vogel').waitFor();
await look(page, 'other');
const links = await page.getByRole('navigation').getByRole('link').allInnerTexts();
must(links.join() === 'Start,Appointments', `she sees ${links}`);
must((await page.goto(input.portal + '/record')).status() === 403, 'the record is closed');
// What was typed for one child in another tab is not sent for the other.
await Promise.all([stale.waitForNavigation(), stale.getByRole('button', { name: 'Send' }).click()]);
must(!(await stale.content()).includes('Lena has a fever') || (await stale.title()) !== 'Messages', 'the form of the other tab is refused');
for (const chart of [lena, tom]) {
  await desk.goto(`${input.url}${chart}/messages`);
  must(!(await desk.content()).includes('Lena has a fever'), 'nobody got the message');
}

// Withdrawn: her next click ends at nothing.
follow(desk);
await desk.goto(`${input.url}${tom}/portal`);
await desk.getByRole('button', { name: 'Withdraw Eva Vogel' }).click();
await desk.getByText('Nobody.', { exact: true }).waitFor();
follow(page);
await page.goto(input.portal + '/');
await page.waitForURL(/\/people$/);
await page.getByText('Lena Vogel').waitFor();
must(!(await page.content()).includes('Tom Vogel'), 'Tom is gone');
await look(page, 'withdrawn');
// Lena was registered twice. The closed record leads on wherever one looks, also on a narrow screen, and takes nothing new.
follow(desk);
const twice = await register('Magdalena', '2018-03-05');
await desk.goto(`${input.url}${lena}/merge?q=Vogel`);
await desk.getByRole('listitem').filter({ hasText: 'Magdalena' }).getByRole('button', { name: 'Close it and link it here' }).click();
await desk.waitForURL(input.url + lena);
await desk.goto(input.url + twice);
const onward = desk.getByRole('region', { name: 'Patient' }).getByRole('link', { name: /^go on in the record/ });
must(await onward.getAttribute('href') === lena, 'the banner leads to the record that goes on');
must(await desk.getByRole('link', { name: 'Book an appointment' }).count() === 0, 'nothing is booked in a closed record');
await look(desk, 'closed');
await desk.setViewportSize({ width: 320, height: 800 });
must(await desk.evaluate(() => document.documentElement.scrollWidth) <= 320, 'the closed record fits a narrow screen');
await look(desk, 'closed-narrow');
await desk.setViewportSize({ width: 1180, height: 820 });
must((await desk.goto(`${input.url}/schedule/book?patient=${twice.split('/').pop()}`)).status() === 409, 'it is refused before a form is filled in');
await look(desk, 'closed-refused');
await desk.getByRole('link', { name: 'Go to the record that goes on' }).click();
await desk.waitForURL(input.url + lena);

// The patient lets nobody act any more: the desk is told, and lets in nobody new.
await write('Acting for me', 'proxies');
follow(desk);
await desk.goto(`${input.url}${lena}/consents`);
await desk.getByRole('link', { name: 'Show and sign Acting for me' }).click();
await desk.getByLabel('Or type the full name').fill('Lena Vogel');
await desk.getByRole('button', { name: 'I do not agree, and sign that' }).click();
await desk.waitForURL(/\/consents\/[0-9a-f-]{36}$/);
await desk.goto(`${input.url}${lena}/portal`);
await desk.getByText("kept out by the patient's consents").waitFor();
must(await desk.getByText('Let somebody act for the patient').count() === 0, 'nobody new is let in');
await look(desk, 'kept-out');
await desk.goto(`${input.url}${lena}/consents`);
await look(desk, 'consents-refused');
await browser.close();
console.log('she acted for whom she may');
