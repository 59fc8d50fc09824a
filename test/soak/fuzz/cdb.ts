import { Cdb, CdbDamaged, formatCdb } from '../../../src/wire/cdb.ts'
import { formatTcpRule, parseTcpRule, parseTcpRules } from '../../../src/wire/tcprules.ts'
import { type FuzzTarget, only, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'
import type { Random } from './random.ts'

const KEYS = ['192.0.2.7', '192.0.2.', '=host.example.net', '', 'k']
const VALUES = ['+RELAYCLIENT=\0', 'D', '+A=b\0+C=\0', ''].map(value => Buffer.from(value))
const RECORDS = KEYS.map((key, index) => ({ key, value: VALUES[index % VALUES.length] ?? Buffer.alloc(0) }))
const FILE = formatCdb(RECORDS)
/** Offsets at which a change has an effect: pointers of tables in use, records, and tables. */
const USED = [
  ...Array.from({ length: 256 }, (_, table) => table * 8).filter(at => FILE.readUInt32LE(at + 4) > 0),
  ...Array.from({ length: (FILE.length - 2048) / 4 }, (_, index) => 2048 + index * 4),
]
const NUMBERS = [0, 1, 4, 8, 255, 2040, 2047, 2048, FILE.length - 8, FILE.length, 0x7fffffff, 0xffffffff, 0xfffffff8]
const RULES = '192.0.2.7:allow,RELAYCLIENT=""\n192.0.2.:deny\n=host.example.net:allow,A="b"\n:allow\n10.0-9.:allow\n'

function damagedFile(random: Random): void {
  let file = Buffer.from(FILE)
  for (let left = 1 + random.int(4); left > 0; left--) {
    const at = random.oneIn(4) ? random.int(file.length - 4) : random.pick(USED)
    file.writeUInt32LE(
      random.oneIn(4) ? random.int(0x1_0000_0000) : random.pick(NUMBERS),
      Math.min(at, file.length - 4),
    )
  }
  if (random.oneIn(8)) file = file.subarray(0, random.int(file.length))
  only(CdbDamaged, file.toString('base64'), () => {
    const cdb = new Cdb(file)
    for (const key of KEYS) only(CdbDamaged, file.toString('base64'), () => cdb.get(key))
    let records = 0
    for (const _ of cdb.records()) records += 1
    promise(records <= file.length / 8, 'more records than octets', file.toString('base64'))
  })
}

/** The cdb reader on damaged files, with the rules in them. */
export const cdb: FuzzTarget = {
  name: 'cdb',
  attempt(random) {
    damagedFile(random)
    const value = Buffer.from(mutated(random, '+RELAYCLIENT=\0+A=b\0', ['D', '+']), 'latin1')
    const rule = parseTcpRule(value)
    if (rule.allow) promise(value[0] !== 0x44, 'D is a refusal', value.toString('latin1'))
    only(RangeError, value.toString('latin1'), () => formatTcpRule(rule))
    parseTcpRules(Buffer.from(mutated(random, RULES, RULES.split('\n')), 'latin1'))
  },
}
