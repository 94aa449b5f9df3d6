// A record as it was: the administrator has it brought back, who treats compares and copies back.
// usage: node look_back.mjs INPUT.json     (written by tests/tests/system/look_back.rs)
import { ask, browser, input, login, look, must } from './clinic.mjs';

const doctor = await login(input.doctor);
await doctor.goto(input.url + input.chart + '/allergies/new');
await doctor.getByLabel('Substance').fill('Penicillin');
await doctor.getByLabel('Risk').selectOption({ index: 1 });
await doctor.getByRole('button', { name: 'Save' }).click();
await doctor.waitForURL(new RegExp(input.chart + '(#.*)?$'));
await doctor.goto(input.url + input.chart + '/documents/new');
await doctor.locator('input[type=file]').setInputFiles({ name: 'letter.txt', mimeType: 'text/plain', buffer: Buffer.from('A letter about the heart\n') });
await doctor.getByLabel('Description').fill('Letter from cardiology');
await doctor.getByRole('button', { name: 'Upload' }).click();
// To the end: the address of the form begins with that of the chart and would be taken for it.
await doctor.waitForURL(new RegExp(input.chart + '(#.*)?$'));
// A snapshot is taken; then somebody takes the allergy for a mistake, and the file of the letter is lost.
await ask('snapshot');
await doctor.goto(input.url + input.chart);
await doctor.getByRole('link', { name: /Penicillin/ }).last().click();
await doctor.getByLabel('Status').selectOption({ label: 'Entered in error' });
await doctor.getByRole('button', { name: 'Save' }).click();
await doctor.waitForURL(new RegExp(input.chart + '(#.*)?$'));
must(!(await doctor.locator('section.banner').innerText()).includes('Penicillin'), 'the allergy is warned of no more');
await ask('lose-file');
const letter = await doctor.request.get(input.url + await doctor.getByRole('link', { name: 'Letter from cardiology' }).getAttribute('href'));
must(letter.status() === 500, `a lost file is told: ${letter.status()}`);
must(await doctor.getByRole('link', { name: 'As it was' }).count() === 0, 'only who may take everything along asks');
must((await doctor.request.get(input.url + input.chart + '/as-it-was')).status() === 403, 'and nobody else reaches the page');

const admin = await login(input.admin);
await admin.goto(input.url + input.chart);
await admin.getByRole('link', { name: 'As it was' }).click();
await admin.getByLabel('As it was on').waitFor();
await look(admin, 'ask');
await admin.getByLabel('As it was on').selectOption({ index: 1 });
await admin.getByLabel('Your password').fill('a guess');
await admin.keyboard.press('Enter');
await admin.getByText('The password is not right').first().waitFor();
await admin.getByLabel('Your password').fill(input.admin.password);
await admin.keyboard.press('Enter');
await admin.waitForURL(/\/as-it-was\/[0-9a-f-]{36}$/);
const beside = admin.url();
await admin.getByText('Entries that differ').waitFor();
must((await admin.locator('main').innerText()).includes('your role does not read'), 'an administrator reads no notes, of then neither');
must(await admin.getByRole('button', { name: /^Copy back/ }).count() === 0, 'and copies nothing of them back');
must(!(await admin.content()).includes('Letter from cardiology'), 'nor sees their names');
await look(admin, 'administrator');

await doctor.goto(input.url + input.chart);
await doctor.getByRole('link', { name: 'Compare' }).click();
await doctor.waitForURL(beside);
const allergy = doctor.getByRole('region', { name: /Allergy/ });
must((await allergy.innerText()).includes('Penicillin'), 'the entry has its name');
must((await allergy.locator('ins').allInnerTexts()).includes('entered-in-error'), 'what is today is marked');
await look(doctor, 'beside');
const then = doctor.waitForEvent('download');
await doctor.getByRole('region', { name: 'Files' }).getByRole('link', { name: 'Letter from cardiology' }).click();
must((await (await then).failure()) === null, 'the file of then is opened');
await doctor.getByRole('button', { name: /Copy back as a new version: Allergy/ }).press('Enter');
await doctor.waitForURL(beside);
await doctor.getByRole('button', { name: /Copy back as a new version: Allergy/ }).waitFor({ state: 'detached' });
must(await doctor.getByRole('region', { name: /Allergy/ }).count() === 0, 'what was copied back differs no more');
// The address stays the same: only the page that comes anew shows that the copy is done.
const anew = doctor.waitForResponse((answer) => answer.url().startsWith(beside) && answer.request().method() === 'GET');
await doctor.getByRole('button', { name: /Copy back as a new version: Document/ }).click();
await anew;
await doctor.waitForLoadState('load');
await doctor.goto(input.url + input.chart);
must((await doctor.locator('section.banner').innerText()).includes('Penicillin'), 'the allergy is what it was');
const again = await doctor.request.get(input.url + await doctor.getByRole('link', { name: 'Letter from cardiology' }).getAttribute('href'));
must((await again.text()) === 'A letter about the heart\n', 'the letter is read again');

const desk = await login(input.desk);
await desk.goto(beside);
must(!(await desk.content()).includes('Letter from cardiology'), 'the desk sees what it sees of every record');
await admin.goto(beside);
await admin.getByRole('button', { name: 'End this look' }).click();
await admin.waitForURL(new RegExp(input.chart + '$'));
must((await doctor.request.get(beside)).status() === 404, 'what was ended is gone for everybody');
await admin.goto(input.url + '/audit?action=look-back');
await look(admin, 'audit');
console.log('the look is over');
await browser.close();
process.exit(0);
