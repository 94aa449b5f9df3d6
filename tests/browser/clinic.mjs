// What the scripts of one clinic share: a browser, people who log in, pages that are looked at.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { freshCode } from './totp.mjs';

export const input = JSON.parse(readFileSync(process.argv[2]));
const { chromium } = createRequire(join(input.modules, 'x.js'))('playwright-core');
const axe = readFileSync(join(input.modules, 'axe-core/axe.min.js'), 'utf8');
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
// The test does what the word says, and answers.
export async function ask(word) { console.log(word); return (await lines.next()).value; }
export function must(condition, what) { if (!condition) throw new Error(what); }

export const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
let current;
// The page that is photographed when something fails.
export function follow(page) { current = page; return page; }
process.on('uncaughtException', async (error) => {
  if (current) await current.screenshot({ path: join(input.shots, `${input.name}-failed.png`), fullPage: true }).catch(() => {});
  console.error(error);
  process.exit(1);
});
// Every page that is looked at is also checked against WCAG 2.2 AA.
export async function look(page, name) {
  await page.screenshot({ path: join(input.shots, `${input.name}-${name}.png`), fullPage: true });
  await page.evaluate(axe);
  const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
  const found = await page.evaluate((runOnly) => window.axe.run(document, { runOnly }), rules);
  must(found.violations.length === 0, `${name}: ${JSON.stringify(found.violations.map((v) => [v.id, v.nodes[0].html]))}`);
}
// A page of its own, with what breaks the policy of the pages told.
export async function visitor() {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1180, height: 820 }, acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.on('console', (m) => must(!/Content Security Policy/i.test(m.text()), m.text()));
  return follow(page);
}
export async function login(user) {
  const page = await visitor();
  // Somebody outside of this browser may have used up the code of this half minute: then the next one is good.
  for (let attempt = 0; ; attempt += 1) {
    await page.goto(input.url + '/login');
    await page.getByLabel('User name').fill(user.name);
    await page.getByLabel('Password').fill(user.password);
    await page.getByLabel('Code').fill(await freshCode(user));
    await page.getByRole('button', { name: 'Log in' }).click();
    try {
      await page.waitForURL((url) => !url.pathname.startsWith('/login'), { timeout: attempt ? 60000 : 10000 });
      return page;
    } catch (error) {
      if (attempt) throw error;
    }
  }
}
