// What leaves the practice on paper, and who puts a name below it: a referral until its report is back, a consent's PDF, a co-signature.
// usage: node letters.mjs INPUT.json     (written by tests/tests/system/letters.rs)
import { browser, follow, input, login, look, must } from './clinic.mjs';

const narrow = async (page, name) => {
  await page.setViewportSize({ width: 320, height: 900 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  await look(page, `${name}-320`);
  must(wide <= 320, `${name}: ${wide} px wide on a screen of 320`);
  await page.setViewportSize({ width: 1180, height: 820 });
};

// The administrator writes a text; the desk registers a patient and has it signed.
const admin = await login(input.admin);
await admin.goto(input.url + '/consents/new');
await admin.getByLabel('Title').fill('Zgoda na zdjęcia');
await admin.getByLabel('Text', { exact: true }).fill('Zgadzam się na zdjęcia. Съёмка. Ναι. 李');
await admin.getByRole('button', { name: 'Save' }).click();
await admin.waitForURL(/\/consents$/);
const desk = await login(input.desk);
const patient = { resourceType: 'Patient', name: [{ family: 'Żółkiewska', given: ['Małgorzata'] }], birthDate: '1958-11-03', gender: 'female',
  telecom: [{ system: 'phone', value: '+48 22 123 45 67' }], address: [{ line: ['ul. Świętokrzyska 12'], city: 'Łódź', postalCode: '90-001' }] };
const id = await desk.evaluate(async (patient) => {
  const answer = await fetch('/fhir/R4/Patient', { method: 'POST', body: JSON.stringify(patient),
    headers: { 'content-type': 'application/fhir+json', 'x-csrf-token': document.body.dataset.csrf } });
  return (await answer.json()).id;
}, patient);
const chart = `${input.url}/patients/${id}`;
await desk.goto(chart + '/consents');
await desk.getByRole('link', { name: 'Show and sign' }).first().click();
const pad = await desk.locator('#pad').boundingBox();
await desk.mouse.move(pad.x + 40, pad.y + 60);
await desk.mouse.down();
for (let n = 1; n < 16; n++) await desk.mouse.move(pad.x + 40 + n * 20, pad.y + 60 + (n % 2) * 60);
await desk.mouse.up();
await desk.getByRole('button', { name: 'I agree and sign' }).click();
await desk.waitForURL(/\/consents\/[0-9a-f-]{36}$/);
const [download] = await Promise.all([desk.waitForEvent('download'), desk.getByRole('link', { name: /PDF/ }).first().click()]);
await download.saveAs(input.pdf);
await desk.context().close();

// The doctor refers the patient. On paper there is the letter, and nothing that is said of it.
const doctor = follow(await login(input.doctor));
await doctor.goto(chart + '/referrals/new');
await doctor.getByLabel('To', { exact: true }).fill('Dr. Herz, Heart Clinic');
await doctor.getByLabel('For', { exact: true }).fill('Cardiology, chest pain');
await doctor.getByLabel('Answer due').fill('2030-01-31');
await doctor.getByRole('button', { name: 'Save the letter' }).click();
await doctor.waitForURL(/\/referrals\/[0-9a-f-]{36}$/);
const referral = doctor.url();
const go = async (step, more) => {
  await doctor.getByLabel('Stands at').selectOption({ label: step });
  await more();
  await doctor.getByRole('button', { name: 'Save' }).click();
};
await go('Sent', () => doctor.getByLabel('Remark').fill('by fax'));
await doctor.getByText('Sent: by fax').waitFor();
await look(doctor, 'referral');
await narrow(doctor, 'referral');
await doctor.emulateMedia({ media: 'print' });
await look(doctor, 'referral-print');
const printed = await doctor.locator('body').innerText();
for (const words of ['Clinic on Elm Street', 'Elm Street 1', 'Springfield', '+1 555 010 2000', 'Dr. Herz', 'Żółkiewska', 'ul. Świętokrzyska 12',
  'Łódź', '+48 22 123 45 67', 'Kind regards']) must(printed.includes(words), `on paper: ${words}: ${printed}`);
must(printed.trim().endsWith(input.doctor.display), `whoever writes is named at the end: ${printed}`);
for (const words of ['by fax', 'Sent', 'Written', 'Stands at', 'not printed', 'answer due', 'Allergies: none']) {
  must(!printed.includes(words), `not on paper: ${words}: ${printed}`);
}
await doctor.emulateMedia({ media: 'screen' });

// The report comes as a file, is put into the chart, and the referral leads to it.
await doctor.goto(chart + '/documents/new');
await doctor.locator('input[type=file]').setInputFiles({ name: 'report.txt', mimeType: 'text/plain', buffer: Buffer.from('The heart is sound\n') });
await doctor.getByLabel('Description').fill('Report of Dr. Herz');
await doctor.getByRole('button', { name: 'Upload' }).click();
await doctor.waitForURL(new RegExp(`/patients/${id}(#.*)?$`));
await doctor.goto(referral);
await go('Report received', async () => {});
await doctor.getByText('Please choose the report above').waitFor();
await look(doctor, 'referral-no-report');
await go('Report received', () => doctor.getByLabel('Report, a document of the chart').selectOption({ index: 1 }));
await doctor.getByRole('link', { name: 'Report of Dr. Herz' }).waitFor();
await go('Closed', async () => {});
await doctor.getByRole('button', { name: 'Reopen' }).waitFor();
await look(doctor, 'referral-closed');
await doctor.getByLabel('Reason').fill('The ECG is missing');
await doctor.getByRole('button', { name: 'Reopen' }).press('Enter');
await doctor.getByText('Reopened: The ECG is missing').waitFor();

// A note waits for a colleague's co-signature, and the colleague finds it in the inbox.
await doctor.goto(chart + '/encounters/new');
await doctor.getByLabel('Reason').fill('Chest pain');
await doctor.getByRole('button', { name: 'Start' }).click();
await doctor.waitForURL(/\/encounters\/[0-9a-f-]{36}$/);
await doctor.getByLabel('Note', { exact: true }).fill('Heart sounds normal.');
await doctor.getByRole('button', { name: 'Save as draft' }).click();
await doctor.getByRole('button', { name: 'Save and sign' }).click();
await doctor.getByText('Ask a colleague to co-sign').press('Enter');
await doctor.getByLabel('Colleague').selectOption({ index: 1 });
await look(doctor, 'ask');
await narrow(doctor, 'ask');
await doctor.getByRole('button', { name: 'Ask' }).press('Enter');
await doctor.getByText(`waiting for co-signature of ${input.senior.display}`).waitFor();
await look(doctor, 'waiting');
const senior = follow(await login(input.senior));
await senior.goto(input.url + '/tasks');
await look(senior, 'inbox');
await senior.getByRole('link', { name: /Co-sign: note/ }).press('Enter');
await look(senior, 'task');
await senior.getByRole('link', { name: 'Open what is to be co-signed' }).press('Enter');
await senior.getByRole('button', { name: 'Co-sign' }).press('Enter');
await senior.getByText('Co-signed by').waitFor();
await look(senior, 'co-signed');
await senior.goto(input.url + '/tasks');
await senior.getByText('Nothing to do here').waitFor();
console.log('the letters are out');
await browser.close();
