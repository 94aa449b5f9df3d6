// The codes of a second factor, as an authenticator shows them.
import { createHmac } from 'node:crypto';

const used = new Set();
// RFC 6238, SHA-1, 6 digits, 30 s.
function code(secret) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  let bits = '';
  for (const c of secret.replace(/=+$/, '')) bits += alphabet.indexOf(c).toString(2).padStart(5, '0');
  const key = Buffer.from(bits.match(/.{8}/g).map((b) => parseInt(b, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30000)));
  const mac = createHmac('sha1', key).update(counter).digest();
  const at = mac[19] & 15;
  return String((mac.readUInt32BE(at) & 0x7fffffff) % 1000000).padStart(6, '0');
}
// A code is good once: the second login of a user waits for the next one.
export async function freshCode(user) {
  for (;;) {
    const now = code(user.secret);
    if (!used.has(user.name + now)) { used.add(user.name + now); return now; }
    await new Promise((done) => setTimeout(done, 500));
  }
}
