// A key in place of the six digits, with the browser's own virtual authenticator.
// usage: node keys.mjs INPUT.json     (written by tests/tests/system/keys.rs)
import { browser, input, look, login, must, visitor } from './clinic.mjs';

// A security key at the USB port of this page's browser, which somebody touches whenever it is asked.
async function plugIn(page) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('WebAuthn.enable');
  const options = { protocol: 'ctap2', transport: 'usb', hasResidentKey: false, hasUserVerification: true,
    isUserVerified: true, automaticPresenceSimulation: true };
  const { authenticatorId } = await cdp.send('WebAuthn.addVirtualAuthenticator', { options });
  return { cdp, authenticatorId, held: async () => (await cdp.send('WebAuthn.getCredentials', { authenticatorId })).credentials };
}

const page = await login(input.doctor);
const key = await plugIn(page);
await page.goto(input.url + '/account');
await look(page, 'account');
await page.getByLabel('Name of the key').fill('blue key on the key ring');
await page.getByLabel('Password for this').fill('a guess');
await page.getByRole('button', { name: 'Add a key' }).click();
await page.getByText('The password is not right').first().waitFor();
await page.getByLabel('Name of the key').fill('blue key on the key ring');
await page.getByLabel('Password for this').fill(input.doctor.password);
await page.keyboard.press('Enter');
await page.getByText('blue key on the key ring').waitFor();
must((await key.held()).length === 1, 'the key has made a pair of keys');
await look(page, 'added');

// Logged out and in again: password, then the key, by the keyboard.
async function logOut() {
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.waitForURL(/\/login$/);
}
async function byKey(password) {
  await page.getByLabel('User name').fill(input.doctor.name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Use a key instead of a code' }).press('Enter');
}
await logOut();
await look(page, 'login');
await byKey('a guess');
await page.getByText('Name or password is not right').first().waitFor();
await byKey(input.doctor.password);
await page.waitForURL(/\/schedule/);
await page.goto(input.url + '/account');
await page.getByText('last used').waitFor();
await logOut();

// A key that is not there, and one that does not answer for this practice: the code stays the way.
const [credential] = await key.held();
await key.cdp.send('WebAuthn.removeCredential', { authenticatorId: key.authenticatorId, credentialId: credential.credentialId });
await byKey(input.doctor.password);
await page.getByText('No key answered').waitFor();
await look(page, 'no-answer');
// A copy that has not counted as far as the key itself.
await key.cdp.send('WebAuthn.addCredential', { authenticatorId: key.authenticatorId, credential: { ...credential, signCount: 0 } });
await page.getByRole('button', { name: 'Ask again' }).press('Enter');
await page.getByText("The key's answer was not accepted").first().waitFor();
await look(page, 'copy');

const again = await login(input.doctor);
await again.goto(input.url + '/account');
await again.getByRole('button', { name: 'Remove blue key on the key ring' }).press('Enter');
await again.waitForURL(/\/account$/);
await again.getByText('blue key on the key ring').waitFor({ state: 'detached' });
const stranger = await visitor();
await stranger.goto(input.url + '/login');
await stranger.getByLabel('User name').fill(input.doctor.name);
await stranger.getByLabel('Password').fill(input.doctor.password);
await stranger.getByRole('button', { name: 'Use a key instead of a code' }).click();
await stranger.getByText('No key was added to this account').first().waitFor();
console.log('the keys are put away');
await browser.close();
process.exit(0);
