# Completion of evection's verbs, options, agents, data sets, tables and files, asked of the binary itself.
_evection() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} words
  case $verb in data|items|ledger|canary) [ "$COMP_CWORD" -gt 2 ] && verb="$verb ${COMP_WORDS[2]}" ;; esac
  if [ "$COMP_CWORD" = 1 ]; then
    words=$(evection --help 2>/dev/null | awk '/^  [a-z]/{print $1}' | sort -u)
  elif [ "$verb" = data ] || [ "$verb" = items ] || [ "$verb" = ledger ] || [ "$verb" = canary ]; then
    words=$(evection --help 2>/dev/null | awk -v family="$verb" '$1 == family && /^  /{print $2}')
  elif [ "$prev" = --data ] || [ "$verb" = "data show" ]; then
    words=$(evection data list 2>/dev/null)
  elif [ "${verb#items }" != "$verb" ] && [ "$COMP_CWORD" = 3 ]; then
    words=$(evection items list 2>/dev/null)
  elif [ "${cur#-}" != "$cur" ]; then
    words=$(evection $verb --help 2>/dev/null | awk '/^  --/{print $1}')
  elif [ "$verb" = agents ]; then
    words=$(evection agents 2>/dev/null | awk 'NR>1{print $2}')
  fi
  # shellcheck disable=SC2207
  COMPREPLY=($(compgen -W "$words" -- "$cur") $(compgen -f -- "$cur"))
}
complete -o filenames -F _evection evection
