import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'

/** A file of a test maildir. Each character of path and content is one octet. */
export interface PlannedFile {
  /** `new/A`. A path that ends in `/` is a directory. */
  readonly path: string
  readonly content: string
  /** Unix seconds. */
  readonly mtime: number
}

/**
 * The account that owns test maildirs when the tests run as root, because no session is ever served
 * as root.
 */
export const OWNER = { uid: 65_534, gid: 65_534 }
export const isRoot = process.getuid?.() === 0

/**
 * Reads `new/A mtime=100 "x\n"`. Without a time the file has the time 1000, and without content it
 * is empty. `mtime=future` is one hour ahead.
 */
export function parseFile(line: string): PlannedFile {
  const match = /^(?<path>\S+)(?: mtime=(?<mtime>\d+|future))?(?: (?<content>".*"))?$/.exec(line)?.groups
  if (match?.['path'] === undefined) throw new Error(`not a file of a maildrop: ${line}`)
  const content: unknown = match['content'] === undefined ? '' : JSON.parse(match['content'])
  if (typeof content !== 'string') throw new Error(`not a text: ${line}`)
  const mtime = match['mtime'] === 'future' ? Math.floor(Date.now() / 1000) + 3600 : Number(match['mtime'] ?? '1000')
  return { path: unescapeOctets(match['path']), content, mtime }
}

const unescapeOctets = (text: string): string =>
  text.replace(/\\x([0-9a-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))

/**
 * Makes a maildir of these files below `root` and returns its absolute path. A file `-new` or
 * `-cur` leaves that folder out.
 */
export function makeMaildir(root: string, files: readonly PlannedFile[]): string {
  const maildir = mkdtempSync(`${root}/maildir-`)
  chmodSync(maildir, 0o755)
  own(maildir)
  const left = new Set(files.filter(({ path }) => path.startsWith('-')).map(({ path }) => path.slice(1)))
  for (const folder of ['new', 'cur', 'tmp'].filter(name => !left.has(name))) {
    mkdirSync(`${maildir}/${folder}`)
    own(`${maildir}/${folder}`)
  }
  for (const { path, content, mtime } of files.filter(({ path }) => !path.startsWith('-'))) {
    const file = octetPath(maildir, path)
    if (path.endsWith('/')) mkdirSync(file)
    else writeFileSync(file, Buffer.from(content, 'latin1'))
    own(file)
    utimesSync(file, mtime, mtime)
  }
  return maildir
}

/** A path below the maildir; each of its characters is one octet. */
export const octetPath = (maildir: string, path: string): Buffer =>
  Buffer.concat([Buffer.from(`${maildir}/`), Buffer.from(path.replace(/\/$/, ''), 'latin1')])

function own(path: string | Buffer): void {
  if (isRoot) chownSync(path, OWNER.uid, OWNER.gid)
}

/** A change that another program makes in the maildir while a session runs. */
export type MaildirAction =
  | { readonly type: 'rename'; readonly path: string; readonly to: string }
  | { readonly type: 'unlink'; readonly path: string }
  /** Replaces the file by a directory, which no program can unlink. */
  | { readonly type: 'obstruct'; readonly path: string }

export function performAction(maildir: string, action: MaildirAction): void {
  const path = `${maildir}/${action.path}`
  switch (action.type) {
    case 'rename':
      renameSync(path, `${maildir}/${action.to}`)
      break
    case 'unlink':
      unlinkSync(path)
      break
    case 'obstruct':
      rmSync(path)
      mkdirSync(path)
      own(path)
      break
  }
}

/** Every file below new/, cur/ and tmp/ as `path "content"`, sorted; directories as `path/ ""`. */
export function stateOf(maildir: string): readonly string[] {
  return ['new', 'cur', 'tmp']
    .filter(folder => statSync(`${maildir}/${folder}`, { throwIfNoEntry: false }) !== undefined)
    .flatMap(folder =>
      readdirSync(`${maildir}/${folder}`, { encoding: 'latin1' }).map(name => {
        const file = octetPath(maildir, `${folder}/${name}`)
        const isFile = statSync(file).isFile()
        return `${folder}/${name}${isFile ? '' : '/'} ${JSON.stringify(isFile ? readFileSync(file, 'latin1') : '')}`
      }),
    )
    .sort()
}
