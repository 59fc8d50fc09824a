import {
  linkSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import fc from 'fast-check'
import { afterAll, expect, test } from 'vitest'
import { EncoderPool } from '../../../src/pop3d/encoding/line-encoder.ts'
import { MaildropCache } from '../../../src/pop3d/maildir/maildrop-cache.ts'
import { updateMaildrop } from '../../../src/pop3d/maildir/update-maildrop.ts'
import { makeMaildir } from '../../harness/pop3/maildir.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const root = temporaryDirectory()
afterAll(() => root.remove())
const encoders = new EncoderPool(65_536)

const BASES = ['X', 'Y', 'Z']
const place = fc.record({
  folder: fc.constantFrom('new', 'cur'),
  base: fc.constantFrom(...BASES),
  flags: fc.constantFrom('', ':2,', ':2,S', ':2,RS'),
})
/** A change by another session or program to a file between the scan and QUIT. */
const change = fc.record({
  what: fc.constantFrom('rename', 'rename', 'rename', 'remove', 'twin', 'rewrite', 'link', 'append'),
  which: fc.nat(),
  folder: fc.constantFrom('new', 'cur'),
  flags: fc.constantFrom('', ':2,', ':2,S', ':2,RS', ':2,FRS'),
})

type ValueOf<Source> = Source extends fc.Arbitrary<infer Value> ? Value : never

/**
 * A file of a deleted message has two names, and one of them is that of a new message with the same
 * base name.
 */
const TWIN_TAKES_NAME: [ValueOf<typeof place>[], boolean[], ValueOf<typeof change>[]] = [
  [
    { folder: 'new', base: 'X', flags: '' },
    { folder: 'new', base: 'Y', flags: ':2,S' },
    { folder: 'cur', base: 'Z', flags: ':2,S' },
    { folder: 'new', base: 'Y', flags: '' },
    { folder: 'new', base: 'Z', flags: '' },
  ],
  [false, false, true, false, true],
  [
    { what: 'rename', which: 2_130_706_417, folder: 'new', flags: ':2,' },
    { what: 'link', which: 0, folder: 'cur', flags: '' },
    { what: 'rename', which: 10, folder: 'new', flags: '' },
  ],
]

/** The files of a maildir, as `folder/name`. */
const filesOf = (maildir: string): readonly string[] =>
  ['new', 'cur'].flatMap(folder => readdirSync(`${maildir}/${folder}`).map(name => `${folder}/${name}`)).sort()

/** Each file contains a unique number, and the number of its message. */
const ownerOf = (path: string): string => readFileSync(path, 'utf8').split(' ', 1)[0] ?? ''

test.each(['none', 'qmail'] as const)(
  'QUIT removes files of deleted messages and no other, also if other programs change the maildrop (compat %s)',
  async compat => {
    let removals = 0
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(place, {
          minLength: 1,
          maxLength: 5,
          selector: ({ folder, base, flags }) => `${folder}/${base}${flags}`,
        }),
        fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
        fc.array(change, { maxLength: 8 }),
        async (places, marks, changes) => {
          const maildir = makeMaildir(root.path, [])
          let serial = 0
          const write = (path: string, owner: string, mtime: number) => {
            serial += 1
            writeFileSync(path, `${owner} ${'x'.repeat(serial)}`)
            utimesSync(path, mtime, mtime)
          }
          for (const [index, { folder, base, flags }] of places.entries()) {
            write(`${maildir}/${folder}/${base}${flags}`, `${folder}/${base}${flags}`, 1000 + (index % 2))
          }
          const maildrop = await new MaildropCache({ sizes: 'file', compat }, encoders, Date.now).open(maildir)
          expect(maildrop.count).toBe(places.length)
          const names = maildrop.messages.map(({ folder, name }) => `${folder}/${name}`)
          const deleted = new Set(names.flatMap((_, index) => (marks[index] === true ? [index + 1] : [])))
          const isDeleted = (owner: string) => deleted.has(names.indexOf(owner) + 1)

          /** Messages whose file was only renamed. */
          const intact = new Set(names)
          for (const { what, which, folder, flags } of changes) {
            const files = filesOf(maildir)
            const file = files[which % files.length]
            if (file === undefined) break
            const path = `${maildir}/${file}`
            const owner = ownerOf(path)
            const base = file.replace(/^\w+\//, '').replace(/:.*/, '')
            const target = `${folder}/${base}${flags}`
            // A message that arrives after the scan has a different name, because the name
            // identifies the message.
            const isFree =
              lstatSync(`${maildir}/${target}`, { throwIfNoEntry: false }) === undefined &&
              !(names.includes(target) && (what === 'twin' || owner === 'stranger'))
            if (what === 'rename' && isFree) renameSync(path, `${maildir}/${target}`)
            else if (what === 'link' && isFree) linkSync(path, `${maildir}/${target}`)
            else if (what === 'remove') {
              unlinkSync(path)
              intact.delete(owner)
            } else if (what === 'twin' && isFree) {
              write(`${maildir}/${target}`, 'stranger', 1002)
            } else if (what === 'rewrite') {
              const draft = mkdtempSync(`${root.path}/draft-`)
              write(`${draft}/file`, owner, 1003)
              renameSync(`${draft}/file`, path)
              rmSync(draft, { recursive: true })
              intact.delete(owner)
            } else if (what === 'append') {
              writeFileSync(path, 'y', { flag: 'a' })
              intact.delete(owner)
            }
          }
          const before = filesOf(maildir).map(file => readFileSync(`${maildir}/${file}`, 'utf8'))
          const failures = await updateMaildrop(maildrop, deleted, compat)
          const after = filesOf(maildir).map(file => readFileSync(`${maildir}/${file}`, 'utf8'))
          const count = (contents: readonly string[], wanted: string) => contents.filter(text => text === wanted).length
          for (const text of before) {
            const owner = text.split(' ', 1)[0] ?? ''
            if (isDeleted(owner)) {
              removals += count(after, text) === 0 ? 1 : 0
              const failed = failures.some(({ number }) => number === names.indexOf(owner) + 1)
              if (compat === 'none' && intact.has(owner) && !failed) expect(count(after, text)).toBe(0)
            } else expect(count(after, text)).toBe(count(before, text))
          }
          for (const { number } of compat === 'none' ? failures : [])
            expect(intact.has(names[number - 1] ?? '')).toBe(false)
        },
      ),
      { numRuns: 1500, examples: [TWIN_TAKES_NAME] },
    )
    expect(removals).toBeGreaterThan(500)
  },
)
